/* Tries, in a confined worker, what cannot be said in safe Rust. It is loaded before the program
 * and works once: when that first asks for a socket after it has confined itself.
 * Writes "can ..." or "cannot ..." for each, as `worker --try-confinement` does for the rest.
 * The process that started it is signalled with nothing, or left as it is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define GIB (1UL << 30)

static void say(const char *what, long result)
{
	fprintf(stderr, "%s %s\n", result >= 0 ? "can" : "cannot", what);
}

/* A child, if there is one, ends at once. */
static void say_child(const char *what, long pid)
{
	if (pid == 0)
		_exit(0);
	say(what, pid);
	if (pid > 0)
		waitpid(pid, 0, 0);
}

static long mapped(size_t bytes, int flags, int fd)
{
	void *at = mmap(0, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (at == MAP_FAILED)
		return -1;
	munmap(at, bytes);
	return 0;
}

static void processes(void)
{
	struct clone_args args = { .exit_signal = SIGCHLD };
	say_child("fork", syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
#ifdef SYS_fork
	say_child("fork as of old", syscall(SYS_fork));
#endif
	say_child("clone3", syscall(SYS_clone3, &args, sizeof args));
	say_child("have a network of its own", syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0));
	say("share another namespace", unshare(CLONE_NEWUSER));
#ifdef __x86_64__
	say("call by other numbers", syscall(0x40000000 + SYS_getppid));
#endif
	say("call what is new", syscall(466, -1, "", 0, 0));
}

static void signals(void)
{
	pid_t server = getppid();
	siginfo_t info;
	int pair[2];
	struct sched_param none = { 0 };

	memset(&info, 0, sizeof info);
	info.si_code = SI_QUEUE;
	say("queue a signal", syscall(SYS_rt_sigqueueinfo, server, 0, &info));
	say("queue a signal for a thread", syscall(SYS_rt_tgsigqueueinfo, server, server, 0, &info));
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		say("PAIR", 0);
	say("have input signalled", fcntl(pair[0], F_SETOWN, server));
	say("choose how input is signalled", fcntl(pair[0], F_SETSIG, SIGKILL));
	say("have input signalled otherwise", ioctl(pair[0], 0x8901, &server));
	say("idle the server", sched_setscheduler(server, sched_getscheduler(server), &none));
	say("slow its disk down", syscall(SYS_ioprio_set, 1, server, 0));
	say("slow itself down", setpriority(PRIO_PROCESS, 0, 6));
	say("choose its own processors", sched_setscheduler(0, SCHED_OTHER, &none));
	say("undo its end", prctl(PR_SET_PDEATHSIG, 0));
	say("be traced", prctl(PR_SET_DUMPABLE, 1));
	say("leave its group", setsid());
}

static void memory(void)
{
	int zero = open("/dev/zero", O_RDWR);
	struct mq_attr attr = { .mq_maxmsg = 10, .mq_msgsize = 8192 };
	mqd_t queue = mq_open("/headwater-confined", O_CREAT | O_RDWR, 0600, &attr);

	say("share memory", mapped(5 * GIB, MAP_SHARED | MAP_ANONYMOUS, -1));
	say("map zeros", zero < 0 ? -1 : mapped(5 * GIB, MAP_SHARED, zero));
	say("grow a stack", mapped(5 * GIB, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1));
	say("have files in memory", syscall(SYS_memfd_create, "x", 0));
	say("have secrets in memory", syscall(SYS_memfd_secret, 0));
	say("have memory of the system", shmget(IPC_PRIVATE, 4096, 0600));
	say("have queues", queue);
	if (queue >= 0)
		mq_unlink("/headwater-confined");
	say("have a little memory", mapped(GIB, MAP_PRIVATE | MAP_ANONYMOUS, -1));
}

static void files(void)
{
	say("mount", syscall(SYS_fsopen, "tmpfs", 0));
	say("open a tree", syscall(SYS_open_tree, -100, "/", 1));
	say("set attributes", syscall(SYS_setxattr, "/proc/self/exe", "user.headwater", "", 0, 0));
#ifdef SYS_chmod
	say("change modes", syscall(SYS_chmod, "/", 0755));
#endif
	say("ask for routes", syscall(SYS_socket, AF_NETLINK, SOCK_RAW, 0));
	say("ask for devices", syscall(SYS_socket, AF_NETLINK, SOCK_RAW, 15));
}

int socket(int domain, int type, int protocol)
{
	static int has_tried;
	int (*next)(int, int, int) = dlsym(RTLD_NEXT, "socket");

	if (!has_tried && prctl(PR_GET_SECCOMP) == 2) {
		has_tried = 1;
		processes();
		signals();
		memory();
		files();
	}
	return next(domain, type, protocol);
}
