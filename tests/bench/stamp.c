/* The program every runtime in the table starts: says when its first instruction ran, then waits for SIGTERM.
 * stamp --once: says nothing and ends. stamp [NAME]: to standard output and, with a NAME, as one more line of /bench/NAME, a directory that all peers mount. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void quit(int number) { (void)number; _exit(0); }

int main(int argc, char **argv)
{
	struct timespec now;
	char line[64], path[256];
	if (argc > 1 && !strcmp(argv[1], "--once"))
		return 0;
	clock_gettime(CLOCK_REALTIME, &now);
	signal(SIGTERM, quit);
	int length = snprintf(line, sizeof line, "first %lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
	if (argc > 1) {
		snprintf(path, sizeof path, "/bench/%s", argv[1]);
		int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
		if (fd < 0 || write(fd, line, length) != length)
			return 1;
		close(fd);
	}
	if (write(1, line, length) != length)
		return 1;
	for (;;)
		pause();
}
