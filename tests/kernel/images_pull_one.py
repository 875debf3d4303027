"""Pull one image in a separate process: STORE REFERENCE. Prints `pulled` and the peak memory of a worker in KiB, or the
error."""

from __future__ import annotations

import asyncio
import resource
import sys

from runtime.errors import ImageError
from runtime.images.client import ImageClient


async def main(store: str, reference: str) -> None:
    client = ImageClient(store)
    try:
        await client.pull(reference)
        print("pulled", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    except ImageError as error:
        print(error)
    finally:
        await client.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
