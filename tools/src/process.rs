//! Programs: no shell, no environment, and no longer or wordier than their bounds. With a program ends its whole group.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::fault::Faults;
use crate::template::Template;
use crate::tool::{ErrorKind, ToolError, ToolOutcome};

/// Where programs that a program starts are looked for.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A program with a place for arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The file, then its arguments.
    argv: Vec<Template>,
    bounds: Bounds,
}

/// Within what a program runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// A program that runs longer is killed.
    pub time: Duration,
    /// What it writes beyond is dropped, bytes.
    pub output: usize,
    /// Its working directory.
    pub folder: PathBuf,
    /// Its environment, beside `PATH` and `LANG`.
    pub environment: BTreeMap<String, String>,
}

impl Program {
    /// A program. What is wrong with it is noted under `key`.
    pub fn new(argv: &[String], bounds: Bounds, key: &str, faults: &mut Faults) -> Self {
        match argv.first() {
            None => faults.add(key, "[]", "give the program and its arguments"),
            Some(file) => {
                let fits =
                    file.starts_with('/') && Template::new(file).arguments().next().is_none();
                let remedy = "begin with the whole path of a program, without {arguments}";
                faults.require(fits, format!("{key}[0]"), format!("{file:?}"), remedy);
            }
        }
        Self { argv: argv.iter().map(|entry| Template::new(entry)).collect(), bounds }
    }

    /// The arguments that it has a place for.
    pub fn arguments(&self) -> impl Iterator<Item = &str> {
        self.argv.iter().flat_map(Template::arguments)
    }

    fn fill(&self, arguments: &Map<String, Value>) -> Result<Vec<String>, ToolError> {
        let mut options_end = false;
        let mut filled = Vec::new();
        for entry in &self.argv {
            filled.extend(entry.argv(arguments, options_end)?);
            options_end |= entry.head() == "--" && entry.arguments().next().is_none();
        }
        Ok(filled)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When an argument does not fit, it cannot be started, takes too long or says by its exit code that it failed.
    pub async fn run(&self, arguments: &Map<String, Value>) -> Result<ToolOutcome, ToolError> {
        let argv = self.fill(arguments)?;
        let Some((file, rest)) = argv.split_first() else {
            return Err(ToolError::new(ErrorKind::Failed, "there is no program"));
        };
        let mut command = Command::new(file);
        command
            .args(rest)
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .envs(&self.bounds.environment)
            .current_dir(&self.bounds.folder)
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|fault| ToolError {
            kind: ErrorKind::Failed,
            for_model: "the program cannot be started".into(),
            for_operator: format!("{file}: {fault}"),
        })?;
        let _group = Group::of(child.id());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let limit = self.bounds.output;
        let ended = async {
            let (status, out, err) = tokio::join!(child.wait(), read(out, limit), read(err, limit));
            status.map(|status| (status, out, err))
        };
        match tokio::time::timeout(self.bounds.time, ended).await {
            Ok(Ok((status, out, _))) if status.success() => {
                Ok(ToolOutcome { text: Some(out), ..ToolOutcome::default() })
            }
            Ok(Ok((status, out, err))) => Err(ToolError {
                kind: ErrorKind::Failed,
                for_model: format!("it failed with {status}"),
                for_operator: json!({ "program": file, "status": status.to_string(),
                    "output": out, "error": err })
                .to_string(),
            }),
            Ok(Err(fault)) => Err(ToolError::new(ErrorKind::Failed, fault.to_string())),
            Err(_) => {
                let text = format!("it ran for more than {:?} and was killed", self.bounds.time);
                Err(ToolError::new(ErrorKind::Timeout, text))
            }
        }
    }
}

/// A group of processes, which is killed when nobody waits for it any more: also what the program left behind.
#[derive(Debug)]
pub(crate) struct Group(Option<Pid>);

impl Group {
    pub(crate) fn of(leader: Option<u32>) -> Self {
        Self(leader.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Where all have ended there is no such group.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

/// What a program writes, up to a limit; what is beyond is read and dropped, so that the program does not wait.
async fn read(pipe: Option<impl AsyncRead + Unpin>, limit: usize) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let (mut kept, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        let room = limit.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..count.min(room)]);
    }
    String::from_utf8_lossy(&kept).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(argv: &[&str], time: Duration) -> Program {
        let argv: Vec<String> = argv.iter().map(|&entry| entry.to_owned()).collect();
        let bounds = Bounds { time, output: 64, folder: "/".into(), environment: BTreeMap::new() };
        let mut faults = Faults::default();
        let program = Program::new(&argv, bounds, "test", &mut faults);
        assert_eq!(faults, Faults::default());
        program
    }

    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn an_argument_is_one_argument_whatever_it_contains() {
        let hostile = "a b'\"; touch /tmp/x $(id) \n*";
        let arguments = Map::from_iter([("text".to_owned(), hostile.into())]);
        let printf = program(&["/usr/bin/printf", "<%s>", "{text}", "{missing}"], LONG);
        let done = printf.run(&arguments).await.unwrap();
        assert_eq!(done.text.unwrap(), format!("<{hostile}>"));
    }

    #[tokio::test]
    async fn the_environment_is_clear_and_output_is_bounded() {
        let done = program(&["/usr/bin/env"], LONG).run(&Map::new()).await.unwrap();
        assert_eq!(done.text.unwrap(), format!("LANG=C.UTF-8\nPATH={PATH}"));
        let long = program(&["/usr/bin/seq", "100000"], LONG).run(&Map::new()).await.unwrap();
        assert!(long.text.unwrap().len() <= 64);
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
        let error = program(&["/bin/sh", "-c", &script], Duration::from_secs(2))
            .run(&Map::new())
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout);
        let child = std::fs::read_to_string(&pid).unwrap();
        let stat = format!("/proc/{}/stat", child.trim());
        // Killed, it is gone or waits for whoever adopted it.
        let lives = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        for _ in 0..500 {
            if !lives() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{stat} lives on");
    }

    #[tokio::test]
    async fn what_a_program_leaves_behind_does_not_hold_up_its_end_for_longer_than_its_time() {
        let script = program(&["/bin/sh", "-c", "sleep 1000 & echo done"], Duration::from_secs(2));
        assert_eq!(script.run(&Map::new()).await.unwrap_err().kind, ErrorKind::Timeout);
    }

    #[tokio::test]
    async fn a_failure_tells_the_operator_more_than_the_model() {
        let error = program(&["/bin/ls", "/no/such"], LONG).run(&Map::new()).await.unwrap_err();
        assert!(!error.for_model.contains("/no/such") && error.for_operator.contains("/no/such"));
        let error = program(&["/no/such"], LONG).run(&Map::new()).await.unwrap_err();
        assert!(!error.for_model.contains("/no/such") && error.for_operator.contains("/no/such"));
    }

    #[test]
    fn a_program_is_a_whole_path() {
        for argv in [&[][..], &["ls"], &["/bin/{x}"]] {
            let argv: Vec<String> = argv.iter().map(|&entry| entry.to_owned()).collect();
            let bounds =
                Bounds { time: LONG, output: 1, folder: "/".into(), environment: BTreeMap::new() };
            let mut faults = Faults::default();
            Program::new(&argv, bounds, "test", &mut faults);
            assert_eq!(faults.0.len(), 1, "{argv:?}");
        }
    }
}
