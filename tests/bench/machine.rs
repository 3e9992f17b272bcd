//! The machine and the processes on it: what a figure must say about where it is from.

use std::process::Command;

use cardea_tests::process;

/// CPU time of a process and its descendants so far, in nanoseconds, from the scheduler's own
/// count (user and system); children that have ended are not in it.
pub(crate) fn cpu_ns(pid: u32) -> u64 {
    let own: u64 = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    own + process::children(pid).into_iter().map(cpu_ns).sum::<u64>()
}

/// Proportional set size of a process and its descendants, in KiB.
pub(crate) fn pss_kib(pid: u32) -> u64 {
    let children = process::children(pid).into_iter().map(pss_kib).sum::<u64>();
    process::status_kib(pid, "Pss:") + children
}

/// One paragraph that names the machine.
pub(crate) fn describe() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or_else(
            || "unknown CPU".to_owned(),
            |name| name.trim_start_matches([' ', '\t', ':']).to_owned(),
        );
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = read("/proc/meminfo")
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .map_or(0, |kib| kib >> 20);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores ({cpu}), {memory} GiB, Linux {}, everything on loopback.",
        kernel.trim()
    )
}

/// The first line that a program prints about its version.
pub(crate) fn version(program: &str, flag: &str) -> String {
    let Ok(out) = Command::new(program).arg(flag).output() else {
        return format!("{program} (not found)");
    };
    let text = [out.stdout, out.stderr].concat();
    String::from_utf8_lossy(&text)
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default()
        .trim()
        .to_owned()
}
