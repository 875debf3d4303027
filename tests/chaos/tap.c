/* A tap on the calls with which a process changes the world: preloaded, it counts them, kills the process at a chosen
 * one, and writes down those that change files, with their data.
 *
 * $CHAOS_STRIKE  a file of struct strike, mapped by the test too: kill -9 the process of that name at its `left`th call
 * $CHAOS_RECORD  a file that every change of a file below $CHAOS_BELOW is appended to (see powercut.py)
 *
 * Calls that do not go through libc are not seen, nor are mapped pages.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct strike {
    volatile int64_t pid;   /* the victim; 0: whoever is called `name`; -1: the next process to begin */
    char name[16];          /* its comm; "" = nobody */
    volatile int64_t left;  /* calls until the blow, counted down; <= 0: none any more */
    volatile int64_t count; /* calls seen meanwhile */
    char call[48];          /* where the blow fell */
};

static struct strike *strike;
static int record = -1;
static char below[PATH_MAX];
static volatile int *lock; /* in a page that forks share: the order in the record is the order on the disk */

typedef long (*raw)(long, ...);

static raw resolve(void)
{
    static raw found;
    if (!found)
        found = (raw)dlsym(RTLD_NEXT, "syscall");
    return found;
}

#define SYS(...) (resolve()(__VA_ARGS__)) /* libc's own: the one below counts */
#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) \
        real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("CHAOS_STRIKE");
    int fd = path ? (int)SYS(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
    if (fd >= 0) {
        void *at = mmap(NULL, sizeof *strike, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at != MAP_FAILED)
            strike = at;
        if (strike)
            __sync_bool_compare_and_swap(&strike->pid, -1, SYS(SYS_getpid));
        SYS(SYS_close, fd);
    }
    path = getenv("CHAOS_RECORD");
    if (path && getenv("CHAOS_BELOW")) {
        strncpy(below, getenv("CHAOS_BELOW"), sizeof below - 1);
        fd = (int)SYS(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT, 0600);
        record = fd < 0 ? -1 : fcntl(fd, F_DUPFD, 900); /* out of the way; children that execute begin anew */
        if (record >= 0)
            fcntl(record, F_SETFD, FD_CLOEXEC);
        lock = mmap(NULL, sizeof *lock, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    }
}

/* -- the blow ------------------------------------------------------------------------------------------------ */

static int is_victim(void)
{
    char name[32] = "";
    int saved = errno, fd;
    ssize_t size;
    if (!strike || strike->left <= 0)
        return 0;
    if (strike->pid)
        return strike->pid == SYS(SYS_getpid);
    fd = (int)SYS(SYS_openat, AT_FDCWD, "/proc/self/comm", O_RDONLY | O_CLOEXEC);
    size = fd < 0 ? 0 : SYS(SYS_read, fd, name, sizeof name - 1);
    if (fd >= 0)
        SYS(SYS_close, fd);
    if (size > 0 && name[size - 1] == '\n')
        name[size - 1] = 0;
    errno = saved;
    return name[0] && !strncmp(name, strike->name, sizeof strike->name);
}

static void moment(const char *call)
{
    if (!is_victim())
        return;
    __sync_add_and_fetch(&strike->count, 1);
    if (__sync_sub_and_fetch(&strike->left, 1) == 0) {
        strncpy(strike->call, call, sizeof strike->call - 1);
        SYS(SYS_kill, SYS(SYS_getpid), SIGKILL);
        SYS(SYS_exit_group, 255); /* the first of a pid namespace cannot kill itself */
    }
}

/* -- the record ---------------------------------------------------------------------------------------------- */

struct entry {
    uint32_t size;  /* of all of it */
    char kind[12];  /* write, truncate, sync, syncfs, link, unlink, rename, mark */
    uint64_t inode; /* the file's; of a link: what gets the name */
    uint64_t directory, other; /* where the name is, and (rename) will be */
    int64_t offset; /* write: where; truncate: the new size; link: st_mode */
    uint32_t first, second; /* bytes that follow: data, or the names */
};

static void enter(void)
{
    if (record >= 0)
        while (__sync_lock_test_and_set(lock, 1))
            SYS(SYS_sched_yield);
}

static void leave(void)
{
    if (record >= 0)
        __sync_lock_release(lock);
}

static void put(struct entry entry, const char *kind, const void *first, size_t firsts, const void *second, size_t seconds)
{
    struct iovec parts[3] = {{&entry, sizeof entry}, {(void *)first, firsts}, {(void *)second, seconds}};
    int saved = errno;
    strncpy(entry.kind, kind, sizeof entry.kind - 1);
    entry.first = (uint32_t)firsts;
    entry.second = (uint32_t)seconds;
    entry.size = (uint32_t)(sizeof entry + firsts + seconds);
    if (SYS(SYS_writev, record, parts, 3) != (ssize_t)entry.size)
        abort();
    errno = saved;
}

static int ours(int fd)
{
    char link[64], path[PATH_MAX];
    int saved = errno;
    ssize_t size;
    if (record < 0 || fd == record)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = SYS(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    errno = saved;
    return size >= (ssize_t)strlen(below) && !strncmp(path, below, strlen(below));
}

static struct stat of(int fd)
{
    struct stat found = {0};
    int saved = errno;
    fstat(fd, &found);
    errno = saved;
    return found;
}

/* The directory that holds a name, and the name in it. 0: not below the place that is watched. */
static uint64_t place(int at, const char *path, const char **name)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    uint64_t inode = 0;
    int fd, saved = errno;
    if (record < 0)
        return 0;
    *name = slash ? slash + 1 : path;
    snprintf(parent, sizeof parent, "%.*s", slash ? (int)(slash - path) + (slash == path) : 1, slash ? path : ".");
    fd = (int)SYS(SYS_openat, at, parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        if (ours(fd))
            inode = of(fd).st_ino;
        SYS(SYS_close, fd);
    }
    errno = saved;
    return inode;
}

static struct stat named(int at, const char *path)
{
    struct stat found = {0};
    int saved = errno;
    fstatat(at, path, &found, AT_SYMLINK_NOFOLLOW);
    errno = saved;
    return found;
}

static void put_link(int at, const char *path)
{
    const char *name;
    uint64_t directory = place(at, path, &name);
    char target[PATH_MAX] = "";
    struct stat found = named(at, path);
    ssize_t size = 0;
    if (!directory)
        return;
    if (S_ISLNK(found.st_mode))
        size = SYS(SYS_readlinkat, at, path, target, sizeof target);
    put((struct entry){.inode = found.st_ino, .directory = directory, .offset = found.st_mode}, "link", name,
        strlen(name), target, size > 0 ? (size_t)size : 0);
}

static void put_unlink(int at, const char *path, uint64_t inode)
{
    const char *name;
    uint64_t directory = place(at, path, &name);
    if (directory)
        put((struct entry){.inode = inode, .directory = directory}, "unlink", name, strlen(name), "", 0);
}

static ssize_t wrote(int fd, const void *data, ssize_t done, off_t offset)
{
    if (done > 0 && ours(fd)) {
        struct stat found = of(fd);
        if (S_ISREG(found.st_mode))
            put((struct entry){.inode = found.st_ino, .offset = offset}, "write", data, (size_t)done, "", 0);
    }
    return done;
}

/* -- data ---------------------------------------------------------------------------------------------------- */

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    ssize_t done;
    moment("write");
    enter();
    done = real(fd, data, size);
    if (record >= 0 && done > 0)
        wrote(fd, data, done, SYS(SYS_lseek, fd, 0, SEEK_CUR) - done);
    leave();
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    ssize_t done;
    moment("pwrite");
    enter();
    done = wrote(fd, data, real(fd, data, size, offset), offset);
    leave();
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    moment("writev");
    if (ours(fd) && S_ISREG(of(fd).st_mode))
        abort(); /* nobody does so far: record it when somebody does */
    return real(fd, parts, count);
}

ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t size, unsigned flags)
{
    REAL(ssize_t, "copy_file_range", int, off_t *, int, off_t *, size_t, unsigned);
    moment("copy_file_range");
    if (record >= 0) { /* refused: the caller reads and writes then */
        errno = EXDEV;
        return -1;
    }
    return real(in, from, out, to, size, flags);
}

ssize_t sendfile64(int out, int in, off_t *offset, size_t size)
{
    REAL(ssize_t, "sendfile64", int, int, off_t *, size_t);
    static __thread char buffer[1 << 16];
    moment("sendfile");
    if (record < 0)
        return real(out, in, offset, size);
    if (offset) { /* nobody does so far */
        errno = EINVAL;
        return -1;
    }
    ssize_t got = SYS(SYS_read, in, buffer, size < sizeof buffer ? size : sizeof buffer);
    return got <= 0 ? got : write(out, buffer, (size_t)got);
}

int ftruncate64(int fd, off_t size)
{
    REAL(int, "ftruncate64", int, off_t);
    int result;
    moment("ftruncate");
    enter();
    result = real(fd, size);
    if (!result && ours(fd))
        put((struct entry){.inode = of(fd).st_ino, .offset = size}, "truncate", "", 0, "", 0);
    leave();
    return result;
}

static int sync_with(int (*real)(int), int fd, const char *kind)
{
    int result;
    moment(kind);
    enter();
    result = real(fd);
    if (!result && ours(fd))
        put((struct entry){.inode = of(fd).st_ino}, strcmp(kind, "syncfs") ? "sync" : "syncfs", "", 0, "", 0);
    leave();
    return result;
}

int fsync(int fd)
{
    REAL(int, "fsync", int);
    return sync_with(real, fd, "fsync");
}

int fdatasync(int fd)
{
    REAL(int, "fdatasync", int);
    return sync_with(real, fd, "fdatasync");
}

int syncfs(int fd)
{
    REAL(int, "syncfs", int);
    return sync_with(real, fd, "syncfs");
}

/* -- names --------------------------------------------------------------------------------------------------- */

static int opened(int at, const char *path, int flags, unsigned mode)
{
    struct stat before = {0};
    int fd, changes = flags & (O_CREAT | O_TRUNC);
    if ((flags & O_TMPFILE) == O_TMPFILE)
        changes = 0;
    if (!changes)
        return (int)SYS(SYS_openat, at, path, flags, mode);
    moment("open");
    enter();
    if (record >= 0)
        before = named(at, path);
    fd = (int)SYS(SYS_openat, at, path, flags, mode);
    if (fd >= 0 && ours(fd)) {
        if (!before.st_ino)
            put_link(at, path);
        else if ((flags & O_TRUNC) && before.st_size)
            put((struct entry){.inode = of(fd).st_ino}, "truncate", "", 0, "", 0);
    }
    leave();
    return fd;
}

static unsigned mode_of(int flags, va_list rest)
{
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, unsigned) : 0;
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    unsigned mode;
    va_start(rest, flags);
    mode = mode_of(flags, rest);
    va_end(rest);
    return opened(AT_FDCWD, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...)
{
    va_list rest;
    unsigned mode;
    va_start(rest, flags);
    mode = mode_of(flags, rest);
    va_end(rest);
    return opened(at, path, flags, mode);
}

int mkdirat(int at, const char *path, mode_t mode)
{
    int result;
    moment("mkdir");
    enter();
    result = (int)SYS(SYS_mkdirat, at, path, mode);
    if (!result)
        put_link(at, path);
    leave();
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

int symlinkat(const char *target, int at, const char *path)
{
    int result;
    moment("symlink");
    enter();
    result = (int)SYS(SYS_symlinkat, target, at, path);
    if (!result)
        put_link(at, path);
    leave();
    return result;
}

int symlink(const char *target, const char *path)
{
    return symlinkat(target, AT_FDCWD, path);
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
    int result;
    moment("link");
    enter();
    result = (int)SYS(SYS_linkat, from, old, to, new, flags);
    if (!result)
        put_link(to, new);
    leave();
    return result;
}

int link(const char *old, const char *new)
{
    return linkat(AT_FDCWD, old, AT_FDCWD, new, 0);
}

int unlinkat(int at, const char *path, int flags)
{
    struct stat before = {0};
    int result;
    moment(flags & AT_REMOVEDIR ? "rmdir" : "unlink");
    enter();
    if (record >= 0)
        before = named(at, path);
    result = (int)SYS(SYS_unlinkat, at, path, flags);
    if (!result)
        put_unlink(at, path, before.st_ino);
    leave();
    return result;
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int renameat(int from, const char *old, int to, const char *new)
{
    const char *name, *other;
    struct stat moved = {0};
    int result;
    moment("rename");
    enter();
    if (record >= 0)
        moved = named(from, old);
    result = (int)SYS(SYS_renameat2, from, old, to, new, 0);
    if (!result && record >= 0) {
        uint64_t directory = place(from, old, &name), target = place(to, new, &other);
        if (directory || target)
            put((struct entry){.inode = moved.st_ino, .directory = directory, .other = target, .offset = moved.st_mode},
                "rename", name, strlen(name), other, strlen(other));
    }
    leave();
    return result;
}

int rename(const char *old, const char *new)
{
    return renameat(AT_FDCWD, old, AT_FDCWD, new);
}

/* -- words to others, and to the kernel (counted alone) -------------------------------------------------------- */

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    REAL(ssize_t, "sendmsg", int, const struct msghdr *, int);
    moment("sendmsg");
    return real(fd, message, flags);
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    REAL(ssize_t, "send", int, const void *, size_t, int);
    moment("send");
    return real(fd, data, size, flags);
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length)
{
    REAL(ssize_t, "sendto", int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    moment("sendto");
    return real(fd, data, size, flags, to, length);
}

/* The engine's door: see runtime/syscalls.py. */
long syscall(long number, ...)
{
    long a, b, c, d, e, f;
    char call[32];
    va_list rest;
    va_start(rest, number);
    a = va_arg(rest, long), b = va_arg(rest, long), c = va_arg(rest, long);
    d = va_arg(rest, long), e = va_arg(rest, long), f = va_arg(rest, long);
    va_end(rest);
    if (number != SYS_futex && number != SYS_gettid) {
        snprintf(call, sizeof call, "system call %ld", number);
        moment(call);
    }
    return SYS(number, a, b, c, d, e, f);
}
