"""Images: from a registry, an archive or the host's own programs into an OCI image layout and unpacked layers.

    reference   docker's image names                 registry   the distribution API, as an async client
    transport   its requests: tokens, patience       auth       who we are: config files, helpers, secrets
    mounts      images to look into                  registriesconf  mirrors, short names
    access      where to ask, and as whom            tls        whom we trust, and the way out
    store       what is here: light, synchronous     content    the writing side: sessions, leases, commits, sweeping
    tarstream   tar as a stream of entries           layers     entries → an overlayfs layer directory
    confined    names and parents that stay inside   lower      what the layers below show
    layertree   that directory while it is filled    settle     what a layer left to those below
    manifests   reading, choosing, translating       verify     the store's own doctor
    pull        a pull from beginning to end         sources    mirrors and registry, one after the other
    streams     growing files and decompression      install    blobs → verified, unpacked, named; whatever the source
    archives    docker-archive, oci-archive, layouts pack       host programs → a minimal image
    names       tags, last use, pruning              export     archives again
    push        to a registry                        repair     what can be mended here
    disk        its file system's failures          buildcache   results of build steps
    worker      the on-demand process                client     the daemon's side of it
    turns       who may pull or remove, and when     elf        what a host program loads

On disk (`<root>` is a valid OCI image layout, so skopeo and umoci read it in place):

    <root>/oci-layout, index.json, blobs/sha256/<hex>
    <root>/layers/<chain id>/      one unpacked layer in overlayfs's own form, shared by all images that have it
    <root>/cache/<key>.json        a build step's result; cache-mounts/<id>: what RUN --mount=type=cache holds;
                                   cache-contents/<context>.json: digests of files that need not be read again;
                                   cache-compressed/: what plain layers came to when they were pushed
    <root>/ingest/<session>/       a writer at work; flocked while its owner lives, cleaned by the next one if not
    <root>/lock                    flocked for every change to index.json and every deletion
"""
