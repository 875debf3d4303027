"""Images: from a registry, an archive or programs of the host into an OCI image layout and unpacked layers.

    client      the daemon's side: one worker process per operation
    worker      that process                        requests    the requests that it receives
    pull_limits limits on pulls; none during a removal
    pull        from a registry                     push        to a registry
    install     any source: verify blobs, unpack layers, name the image
    manifests   read, check and choose manifests    imageconfig check configs
    reference   docker's image names                repair      restore a damaged store

    registry/   the distribution API
        access          which registries, in which order, with which logins
        sources         mirrors and the registry of one image, tried in order
        repository      manifests, configs and blobs of one repository
        transport       HTTP requests: authentication, redirects, retries
        auth            logins: config files, credential helpers, pull secrets
        tls             CA bundles, client certificates, proxies
        registriesconf  mirrors, blocked registries, short names
        policy          which images may be pulled
        signatures      signatures of images, and their verification

    layers/     tar streams and overlayfs directories
        streams         growing files, decompression in bounded memory
        tarstream       tar as a stream of entries
        unpack          entries → an overlayfs layer directory
        layertree       that directory while it is unpacked
        confined        keeps names and parents inside it
        lower           the merged view of lower layers
        missing_entries what a layer takes over from lower layers
        compress        plain layers, compressed for a push

    archive/    files
        reading         load docker-archive, oci-archive, OCI layouts
        export          save them
        pack            programs of the host → a minimal image
        elf             the libraries a program loads

    store/      what is on disk; a module imports only those below it
        verify, usage   check the store; disk space
        deletion        untag, prune, sweep
        buildcache      results of build steps     names       tags and last use
        content         write: sessions, leases, commits
        listing         index.json's list, as pure functions
        store           read: records and paths
        disk            atomic writes, syncing, sizes
        mounts          images mounted for inspection

On disk (`<root>` is a valid OCI image layout, which skopeo and umoci can read):

    <root>/oci-layout, index.json, blobs/sha256/<hex>
    <root>/layers/<chain id>/      an unpacked layer in overlayfs's own form, shared by all images that have it
    <root>/cache/<key>.json        the result of a build step
    <root>/cache-mounts/<id>/      the content of a RUN --mount=type=cache
    <root>/cache-contents/         digests of context files, so that unchanged files are not read again
    <root>/cache-compressed/       digests of layers compressed for a push
    <root>/ingest/<session>/       a writer's directory; its owner holds an flock, and the next writer deletes leftovers
    <root>/lock                    flocked for every change to index.json and every deletion
"""
