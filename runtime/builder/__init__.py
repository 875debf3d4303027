"""Builds: a Containerfile and its context → an image in the store. Standard library only, like the engine.

Pure:

    language/   the Containerfile
        lexer           text → instructions with their places
        instructions    each instruction → a frozen value
        words           variables and quotes
        graph           stages: which are needed, which depend on which
        ignore          .dockerignore
    config      an image's config, instruction by instruction
    keys        cache keys of steps
    errors      build errors, with file:line

With effects:

    solver      stages in parallel, steps by cache key
    stage       one stage, step by step
    stage_view  the part of a stage that its steps use
    overlay     snapshots as detached overlay mounts
    diff        an upper directory → a layer's tar
    known       digests of context files from earlier builds
    output      the result: image, directory or archive

    copy/       COPY and ADD
        copystep        one instruction: sources, key, effect
        context         the files of a context, stage or image
        copying         writes them into a snapshot
        accounts        user and group names of an image
        fetch, git, unpacking   ADD from a URL, a repository, an archive
        reach           the addresses that ADD may fetch from

    run/        RUN
        runstep         one instruction: command, mounts, key
        running         config.json, and the builder's side of the runner
        runner          the process that is the container's parent
        cachemount      --mount=type=cache
        agents          --mount=type=ssh
        leftovers       cgroups of builds that were killed

Nothing is mounted in the node's mount namespace. Snapshots are fsmount(2) descriptors that are never attached, and the
container's init mounts the root of a RUN. So a killed build leaves only its session's directory, which the next writer
of the store removes, its RUN's cgroup (`leftovers.py`), and its cache.
"""
