//! A program that runs beside a test, and what it says.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long a program may take to say what is expected.
const PATIENCE: Duration = Duration::from_mins(2);

/// A running program with all that it started; killed on drop.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it. Both its outputs go to this file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let out = File::create(log).unwrap();
        let child = command
            .process_group(0)
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap_or_else(|fault| panic!("{command:?}: {fault}"));
        Self { child, log: log.to_owned() }
    }

    /// All that it said so far.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits until it has said this; all that it said by then.
    pub(crate) fn until(&mut self, part: &str) -> String {
        let started = Instant::now();
        loop {
            let ended = self.child.try_wait().unwrap();
            let said = self.said();
            if said.contains(part) {
                return said;
            }
            assert!(ended.is_none(), "it ended, and said no {part}:\n{said}");
            assert!(started.elapsed() < PATIENCE, "no {part} in:\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        Command::new("kill").args(["-KILL", "--", &group]).status().ok();
        self.child.wait().ok();
    }
}

/// The commands of a document's `sh` blocks, block by block and line by line.
pub(crate) fn commands(document: &str) -> Vec<Vec<&str>> {
    let blocks = document.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks
        .map(|block| {
            let lines = block.lines().map(|line| line.split("  #").next().unwrap().trim());
            lines.filter(|line| !line.is_empty()).collect()
        })
        .collect()
}

/// The part of a document under a heading, up to the next of the same level.
pub(crate) fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let level = heading.split(' ').next().unwrap();
    let (_, after) = document.split_once(&format!("\n{heading}\n")).unwrap();
    after.split(&format!("\n{level} ")).next().unwrap()
}

/// `PATH` with the folder of the tested program first.
pub(crate) fn path() -> String {
    let program = crate::demo::outpost();
    let folder = Path::new(program.get_program()).parent().unwrap();
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default())
}
