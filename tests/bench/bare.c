/* Only the kernel's work for one container with a network namespace: what no runtime can be faster than.
 * bare LOWER UPPER WORK MERGED [-v SOURCE TARGET]… PROGRAM [ARG]: namespaces, overlay, /proc /sys /dev, binds, pivot_root,
 * exec. No veth, no limits, no image, no log. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void must(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		_exit(1);
	}
}

static int child(void *argument)
{
	char **argv = argument, options[4096], *merged = argv[4];
	must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
	snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", argv[1], argv[2], argv[3]);
	must(mount("overlay", merged, "overlay", 0, options), "overlay");
	must(chdir(merged), "chdir");
	mkdir("proc", 0755), mkdir("sys", 0755), mkdir("dev", 0755);
	must(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "proc");
	must(mount("sysfs", "sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "sysfs");
	must(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k"), "dev");
	mkdir("dev/pts", 0755), mkdir("dev/shm", 0755), mkdir("dev/mqueue", 0755);
	must(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"), "devpts");
	must(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k"), "shm");
	must(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "mqueue");
	const char *names[] = {"null", "zero", "full", "random", "urandom", "tty"};
	const int majors[] = {1, 1, 1, 1, 1, 5}, minors[] = {3, 5, 7, 8, 9, 0};
	for (int i = 0; i < 6; i++) {
		char path[32];
		snprintf(path, sizeof path, "dev/%s", names[i]);
		must(mknod(path, S_IFCHR | 0666, makedev(majors[i], minors[i])), path);
	}
	char **program = argv + 5;
	for (; program[0] && !strcmp(program[0], "-v") && program[1] && program[2]; program += 3) {
		mkdir(program[2], 0755);
		must(mount(program[1], program[2], NULL, MS_BIND, NULL), program[1]);
	}
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "umount");
	must(chdir("/"), "chdir /");
	execv(program[0], program);
	perror(program[0]);
	return 1;
}

int main(int argc, char **argv)
{
	if (argc < 6)
		return 2;
	char *stack = malloc(1 << 16);
	int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP | SIGCHLD;
	pid_t pid = clone(child, stack + (1 << 16), flags, argv);
	must(pid, "clone");
	int status;
	must(waitpid(pid, &status, 0), "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
