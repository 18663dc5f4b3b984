//! Starts children, reads what they write, and makes sure that none outlives the tool.
//!
//! A child gets a process group of its own, so that Ctrl-C reaches only the tool, and the guard can
//! kill a whole family (a shell script and what it started) at once.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::cmd::Cmd;
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::lifeline;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It did not end within the limit, and was killed.
    TimedOut,
}

/// What a child wrote.
pub enum Chunk {
    /// To its standard output.
    Out(Vec<u8>),
    /// To its standard error.
    Err(Vec<u8>),
}

/// What a reader of chunks wants.
pub enum Next {
    /// Go on.
    Continue,
    /// The story is told: the child has this much time left to end by itself.
    EndWithin(Duration),
}

/// What a captured child wrote.
#[derive(Debug)]
pub struct Captured {
    /// How it ended.
    pub end: End,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Captured {
    /// Tells whether it exited with 0.
    pub fn ok(&self) -> bool {
        self.end == End::Code(0)
    }
}

/// Runs `cmd` to its end and hands each chunk to `on_chunk`.
///
/// `show_stderr` passes the child's standard error through to ours instead. Without a `limit` only the
/// user ends a child that hangs.
pub fn supervise(
    cmd: &Cmd,
    limit: Option<Duration>,
    show_stderr: bool,
    interrupt: &Interrupt,
    on_chunk: &mut dyn FnMut(Chunk) -> Next,
) -> Result<End, Error> {
    let mut command = cmd.to_command();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    command.stderr(if show_stderr { Stdio::inherit() } else { Stdio::piped() });
    lifeline::kill_with_parent(&mut command);
    let child = command.spawn().map_err(Error::io(format!("start {cmd}")))?;
    let mut guard = Guard { child };
    let chunks = guard.read_pipes();

    let mut deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut pipes_open = true;
    let mut exited: Option<(ExitStatus, Instant)> = None;
    loop {
        if let Some(signal) = interrupt.signal() {
            return Err(Error::Interrupted(signal));
        }
        if pipes_open {
            match chunks.recv_timeout(TICK) {
                Ok(chunk) => {
                    if let Next::EndWithin(grace) = on_chunk(chunk) {
                        let end = Instant::now() + grace;
                        deadline = Some(deadline.map_or(end, |deadline| deadline.min(end)));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => pipes_open = false,
            }
        } else if exited.is_none() {
            thread::sleep(TICK);
        }
        if exited.is_none() {
            let status = guard.child.try_wait().map_err(Error::io(format!("wait for {cmd}")))?;
            exited = status.map(|status| (status, Instant::now()));
        }
        match exited {
            // A grandchild may hold the pipes open for ever: what comes later is not the child's.
            Some((status, since)) if !pipes_open || since.elapsed() > DRAIN => {
                return Ok(end_of(status));
            }
            Some(_) => {}
            None if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                return Ok(End::TimedOut);
            }
            None => {}
        }
    }
}

/// Runs `cmd` and returns all it wrote.
pub fn capture(cmd: &Cmd, limit: Duration, interrupt: &Interrupt) -> Result<Captured, Error> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let end = supervise(cmd, Some(limit), false, interrupt, &mut |chunk| {
        match chunk {
            Chunk::Out(bytes) => stdout.extend_from_slice(&bytes),
            Chunk::Err(bytes) => stderr.extend_from_slice(&bytes),
        }
        Next::Continue
    })?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Captured { end, stdout: text(stdout), stderr: text(stderr) })
}

/// Runs `cmd` with its standard error shown, and hands each line of its output to `on_line`.
pub fn lines(
    cmd: &Cmd,
    interrupt: &Interrupt,
    on_line: &mut dyn FnMut(&str),
) -> Result<End, Error> {
    let mut rest = Vec::new();
    let end = supervise(cmd, None, true, interrupt, &mut |chunk| {
        if let Chunk::Out(bytes) = chunk {
            rest.extend_from_slice(&bytes);
            while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=at).collect();
                on_line(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
            }
        }
        Next::Continue
    })?;
    if !rest.is_empty() {
        on_line(&String::from_utf8_lossy(&rest));
    }
    Ok(end)
}

/// Runs `cmd` in our own process group with our terminal, for programs that ask questions or must
/// not be killed half way: sudo, the package manager.
pub fn attended(cmd: &Cmd, interrupt: &Interrupt) -> Result<End, Error> {
    let mut command = cmd.to_command();
    command.stdout(io::stderr()); // our own output is for results
    let status = command.status().map_err(Error::io(format!("start {cmd}")))?;
    match interrupt.signal() {
        Some(signal) => Err(Error::Interrupted(signal)),
        None => Ok(end_of(status)),
    }
}

/// Returns the usual name of a signal.
pub fn signal_name(signal: i32) -> String {
    match Signal::from_named_raw(signal) {
        Some(Signal::ABORT) => "SIGABRT".into(),
        Some(Signal::HUP) => "SIGHUP".into(),
        Some(Signal::INT) => "SIGINT".into(),
        Some(Signal::KILL) => "SIGKILL".into(),
        Some(Signal::SEGV) => "SIGSEGV".into(),
        Some(Signal::TERM) => "SIGTERM".into(),
        _ => format!("signal {signal}"),
    }
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Code(code),
        (None, Some(signal)) => End::Signal(signal),
        (None, None) => End::Code(-1),
    }
}

/// Kills the child and what it started when it goes out of scope, on whichever way.
struct Guard {
    child: Child,
}

impl Guard {
    fn read_pipes(&mut self) -> Receiver<Chunk> {
        // Bounded: a child that floods us waits, it does not fill our memory.
        let (sender, receiver) = sync_channel(64);
        if let Some(pipe) = self.child.stdout.take() {
            let sender = sender.clone();
            thread::spawn(move || forward(pipe, &sender, Chunk::Out));
        }
        if let Some(pipe) = self.child.stderr.take() {
            thread::spawn(move || forward(pipe, &sender, Chunk::Err));
        }
        receiver
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // An error means that nobody is left in the group.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn forward(mut pipe: impl Read, sender: &SyncSender<Chunk>, wrap: fn(Vec<u8>) -> Chunk) {
    let mut buffer = [0; 8192];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(len) => {
                if sender.send(wrap(buffer[..len].to_vec())).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// How often a wait looks at the clock and at the interrupt flag.
const TICK: Duration = Duration::from_millis(20);
/// How long a pipe may stay open after the child ended.
const DRAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Cmd {
        Cmd::new("sh").args(["-c", script])
    }

    fn run(script: &str) -> Captured {
        capture(&sh(script), Duration::from_secs(10), &Interrupt::default()).expect("sh starts")
    }

    /// Tells whether the process that wrote its id to our pipe is gone.
    fn gone(pid: &str) -> bool {
        let stat = format!("/proc/{}/stat", pid.trim());
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            match std::fs::read_to_string(&stat) {
                Ok(stat) if !stat.contains(") Z ") => thread::sleep(TICK),
                _ => return true,
            }
        }
        false
    }

    #[test]
    fn exit_codes_signals_and_both_outputs_arrive() {
        let done = run("echo out; echo err >&2; exit 7");
        assert_eq!((done.end, &*done.stdout, &*done.stderr), (End::Code(7), "out\n", "err\n"));
        assert_eq!(run("kill -9 $$").end, End::Signal(9));
        assert_eq!(run("exec >&- 2>&-; sleep 0.1; exit 3").end, End::Code(3), "pipes closed early");
    }

    #[test]
    fn a_child_over_its_limit_is_killed_with_all_it_started() {
        let mut out = String::new();
        let start = Instant::now();
        let limit = Some(Duration::from_millis(300));
        let cmd = sh("sleep 1000 & echo $!; wait");
        let end = supervise(&cmd, limit, false, &Interrupt::default(), &mut |chunk| {
            if let Chunk::Out(bytes) = chunk {
                out.push_str(&String::from_utf8_lossy(&bytes));
            }
            Next::Continue
        });
        assert_eq!(end.expect("sh starts"), End::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(gone(&out), "the grandchild {out} lives");
    }

    #[test]
    fn a_flood_of_output_does_not_stop_the_clock() {
        let limit = Some(Duration::from_millis(300));
        let end =
            supervise(&sh("yes"), limit, false, &Interrupt::default(), &mut |_| Next::Continue);
        assert_eq!(end.expect("sh starts"), End::TimedOut);
    }

    #[test]
    fn a_grandchild_that_holds_the_pipe_does_not_keep_us() {
        let start = Instant::now();
        let done = run("sleep 1000 & echo $!; exit 4");
        assert_eq!(done.end, End::Code(4));
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(gone(&done.stdout), "the grandchild lives");
    }

    #[test]
    fn an_interrupt_kills_the_child() {
        let interrupt = Interrupt::default();
        let mut out = String::new();
        let result = supervise(&sh("echo $$; sleep 1000"), None, false, &interrupt, &mut |chunk| {
            if let Chunk::Out(bytes) = chunk {
                out.push_str(&String::from_utf8_lossy(&bytes));
                interrupt.raise(2);
            }
            Next::Continue
        });
        assert!(matches!(result, Err(Error::Interrupted(2))));
        assert!(gone(&out), "the child lives");
    }

    #[test]
    fn a_reader_can_shorten_the_limit() {
        let start = Instant::now();
        let mut grace = |_| Next::EndWithin(Duration::from_millis(100));
        let end =
            supervise(&sh("echo x; sleep 1000"), None, false, &Interrupt::default(), &mut grace);
        assert_eq!(end.expect("sh starts"), End::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn lines_are_whole_even_without_a_last_newline() {
        let mut seen = Vec::new();
        let cmd = sh("printf 'a\\nb'; sleep 0.05; printf 'c\\nd'");
        lines(&cmd, &Interrupt::default(), &mut |line| seen.push(line.to_owned())).expect("runs");
        assert_eq!(seen, ["a", "bc", "d"]);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let cmd = Cmd::new("/no/such/program");
        let error = capture(&cmd, Duration::from_secs(1), &Interrupt::default()).unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
