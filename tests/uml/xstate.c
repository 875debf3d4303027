/* Preloaded into User Mode Linux where the machine's processors have AMX (see harness.py).
 *
 * The kernel takes a process's extended state whole or not at all (xstateregs_set, arch/x86/kernel/fpu/regset.c), and with
 * AMX's tiles that is some 11 KiB. UML 6.12 keeps two pages (arch_init_registers, arch/x86/um/os-Linux/registers.c), gives
 * back just those, and dies of the EFAULT. Here the rest is what the process has: no tiles, as nobody asked for them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif

static long call(long request, pid_t pid, void *address, void *data)
{
	static long (*next)(long, pid_t, void *, void *);

	if (!next)
		next = (long (*)(long, pid_t, void *, void *))dlsym(RTLD_NEXT, "ptrace");
	return next(request, pid, address, data);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list rest;
	va_start(rest, request);
	pid_t pid = va_arg(rest, pid_t);
	void *address = va_arg(rest, void *), *data = va_arg(rest, void *);
	va_end(rest);

	long result = call(request, pid, address, data);
	if (result == 0 || errno != EFAULT || request != PTRACE_SETREGSET || address != (void *)NT_X86_XSTATE)
		return result;
	static char whole[1 << 16]; /* UML's kernel side is one thread */
	struct iovec *given = data, all = { whole, sizeof whole };
	if (call(PTRACE_GETREGSET, pid, address, &all) < 0 || given->iov_len > all.iov_len)
		return -1;
	memcpy(whole, given->iov_base, given->iov_len);
	return call(PTRACE_SETREGSET, pid, address, &all);
}
