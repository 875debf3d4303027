"""Builds: a Containerfile and its context → an image in the store. Standard library only, like the engine.

    lexer          text → instructions with their places         words       variables and quotes
    instructions   what each of them says                        graph       stages: needed, and who waits for whom
    ignore         .dockerignore                                 config      an image's config, step by step
    keys           what makes two steps the same                 errors      every one with file:line
    ── the above are pure; these act ──
    context        the files of the context                      overlay     snapshots as detached mounts
    copying        COPY and ADD                                  diff        an upper directory → a layer's tar
    cache          results of steps, on disk                     running     RUN: config.json and its runner
    runner         the process that is a RUN's parent            solver      stages beside each other, step by step
    output         image, directory, archives                    fetch       ADD from the network
    leftovers      cgroups of builds that were killed

Nothing is mounted in the node's mount namespace: snapshots are fsmount(2) descriptors that nobody attaches, RUN's
root is mounted by its container's init. So a build that is killed leaves what its session holds, which the next
writer of the store removes, and the cache.
"""
