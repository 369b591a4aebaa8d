package proc

import "golang.org/x/sys/unix"

const (
	regular = unix.S_IFREG
	symlink = unix.S_IFLNK | 0777
	dir     = unix.S_IFDIR
)

// entries are the files of a task's directory, in the order of listings. The place in the table makes the inode number: at most 255.
var entries = [...]entry{
	{name: "task", mode: dir | 0555, where: inProcess, dir: newThreadsDir},
	{name: "fd", mode: dir | 0500, where: inBoth, dir: newFDDir},
	{name: "fdinfo", mode: dir | 0555, where: inBoth, dir: newFDInfoDir},
	{name: "ns", mode: dir | 0511, where: inBoth, dir: newNSDir},
	{name: "net", mode: dir | 0555, where: inBoth, dir: newNetDir},
	{name: "environ", mode: regular | 0400, where: inBoth, open: openEnviron},
	{name: "auxv", mode: regular | 0400, where: inBoth, open: openAuxv},
	{name: "status", mode: regular | 0444, where: inBoth, gen: genStatus},
	{name: "personality", mode: regular | 0400, where: inBoth, access: unix.EPERM, gen: genPersonality},
	{name: "limits", mode: regular | 0444, where: inBoth, gen: genLimits},
	{name: "comm", mode: regular | 0644, where: inBoth, gen: genComm, set: setComm},
	{name: "syscall", mode: regular | 0400, where: inBoth, access: unix.EPERM, gen: genSyscall},
	{name: "cmdline", mode: regular | 0444, where: inBoth, open: openCmdline},
	{name: "stat", mode: regular | 0444, where: inBoth, gen: genStat},
	{name: "statm", mode: regular | 0444, where: inBoth, gen: genStatm},
	{name: "maps", mode: regular | 0444, where: inBoth, open: openMaps},
	{name: "mem", mode: regular | 0600, where: inBoth, open: openMem},
	{name: "cwd", mode: symlink, where: inBoth, link: linkCWD},
	{name: "root", mode: symlink, where: inBoth, link: linkRoot},
	{name: "exe", mode: symlink, where: inBoth, link: linkExe},
	{name: "mounts", mode: regular | 0444, where: inBoth, open: openMounts},
	{name: "mountinfo", mode: regular | 0444, where: inBoth, open: openMountInfo},
	{name: "mountstats", mode: regular | 0400, where: inProcess, open: openMountStats},
	{name: "smaps", mode: regular | 0444, where: inBoth, open: openSmaps},
	{name: "smaps_rollup", mode: regular | 0444, where: inBoth, open: openSmapsRollup},
	{name: "wchan", mode: regular | 0444, where: inBoth, gen: genWchan},
	{name: "schedstat", mode: regular | 0444, where: inBoth, gen: genSchedstat},
	{name: "cgroup", mode: regular | 0444, where: inBoth, gen: genCgroup},
	{name: "cpuset", mode: regular | 0444, where: inBoth, gen: genCpuset},
	{name: "oom_score", mode: regular | 0444, where: inBoth, gen: genOOMScore},
	{name: "oom_adj", mode: regular | 0644, where: inBoth, gen: genOOMAdj, set: setOOMAdj},
	{name: "oom_score_adj", mode: regular | 0644, where: inBoth, gen: genOOMScoreAdj, set: setOOMScoreAdj},
	{name: "loginuid", mode: regular | 0644, where: inBoth, gen: genLoginUID, set: setLoginUID},
	{name: "sessionid", mode: regular | 0444, where: inBoth, gen: genSessionID},
	{name: "coredump_filter", mode: regular | 0644, where: inProcess, gen: genCoredumpFilter, set: setCoredumpFilter},
	{name: "io", mode: regular | 0400, where: inBoth, access: unix.EACCES, gen: genIO},
	{name: "uid_map", mode: regular | 0644, where: inBoth, open: openUIDMap},
	{name: "gid_map", mode: regular | 0644, where: inBoth, open: openGIDMap},
	{name: "projid_map", mode: regular | 0644, where: inBoth, open: openProjIDMap},
	{name: "setgroups", mode: regular | 0644, where: inBoth, open: openSetgroups},
	{name: "timers", mode: regular | 0444, where: inProcess, openAccess: true, gen: genTimers},
	{name: "timerslack_ns", mode: regular | 0666, where: inProcess, gen: genTimerSlack, set: setTimerSlack},
	{name: "children", mode: regular | 0444, where: inThread, gen: genChildren},
}
