//! The pages that install the agent as a service, command by command, and the agent as a user who may do nothing else.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use outpost_tests::{root, skip};

use crate::demo::outpost;
use crate::program::{Program, commands, section};

const PAGE: &str = include_str!("../../docs/devices.md");
/// A user who owns nothing.
const USER: &str = "nobody";

/// A machine's folders, within a folder for the test that everybody may enter.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(folder.path().join("usr/bin")).unwrap();
        Self(folder)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// A command of a page, with the machine's folders for those of the system.
    fn placed(&self, command: &str) -> String {
        let here = |folder: &str| format!("{}/{folder}", self.0.path().display());
        let mut command = command.replace("target/release/outpost", &program());
        for folder in ["etc/", "usr/bin/", "opt/outpost"] {
            command = command.replace(&format!(" /{folder}"), &format!(" {}", here(folder)));
            command = command.replace(&format!("\"/{folder}"), &format!("\"{}", here(folder)));
        }
        command
    }

    /// Runs the commands that install the agent.
    fn install(&self) {
        let page = section(PAGE, "## Service");
        let lines: Vec<&str> = commands(page).concat();
        assert!(lines.len() > 6, "{lines:?}");
        for line in lines {
            // There is no systemd to tell; the virtual machine's checks do that.
            if line.starts_with("systemctl ") {
                continue;
            }
            let command = self.placed(&line.replace("\"$PWD/", "\""));
            let path = format!(
                "{}:{}",
                self.path("usr/bin").display(),
                std::env::var("PATH").unwrap_or_default()
            );
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("umask 022; {command}")]).env("PATH", path);
            let output = shell.current_dir(root()).output().unwrap();
            assert!(output.status.success(), "{command}: {}", text(&output.stderr));
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The tested program.
fn program() -> String {
    outpost().get_program().to_str().unwrap().to_owned()
}

/// Whether this test can run programs as another user. Only root can; else the agent runs as the user of the test, who may read
/// and write all that the test made, so that less is held: the rights of the files.
fn can_be_another() -> bool {
    outpost_agent::doctor::is_root()
}

/// `outpost` as a user who may do nothing, without a home.
fn as_nobody(folder: &Path) -> Command {
    let mut command = if can_be_another() {
        let mut command = Command::new("runuser");
        command.args(["-u", USER, "--", &program()]);
        command
    } else {
        println!("not root: the agent runs as the user of the test");
        Command::new(program())
    };
    command.current_dir(folder).env("HOME", "/nonexistent");
    for variable in ["OUTPOST_MODEL", "OUTPOST_CACHE", "RUST_LOG", "XDG_CACHE_HOME"] {
        command.env_remove(variable);
    }
    command
}

/// Whether that user can run the program at all: a checkout below a closed home cannot be entered.
fn can_run(machine: &Machine) -> bool {
    let version = as_nobody(machine.0.path()).arg("--version").output().unwrap();
    if !version.status.success() {
        skip(&format!("{USER} may not run {}: {}", program(), text(&version.stderr)));
    }
    version.status.success()
}

#[test]
fn the_commands_of_the_page_make_what_an_unprivileged_user_can_run() {
    let machine = Machine::new();
    if !can_run(&machine) {
        return;
    }
    machine.install();
    assert!(machine.path("etc/systemd/system/outpost.service").is_file());
    let config = machine.path("etc/outpost/outpost.toml");
    let model = format!("path = \"{}\"", machine.path("opt/outpost/nano").display());
    assert!(fs::read_to_string(&config).unwrap().contains(&model));

    let mut agent = as_nobody(machine.0.path());
    agent.args(["run", "--config"]).arg(&config);
    let said = Program::start(&mut agent, &machine.path("log")).until("  talk ");
    assert!(said.contains("ready: device "), "{said}");
    let mut doctor = as_nobody(machine.0.path());
    let output = doctor.args(["doctor", "--config"]).arg(&config).output().unwrap();
    let found = text(&output.stdout);
    assert!(output.status.success() && found.contains("opt/outpost/nano"), "{found}");
}

#[test]
fn what_a_restart_does_not_mend_ends_with_78() {
    let machine = Machine::new();
    if !can_run(&machine) {
        return;
    }
    // A repository whose model that user may not pack.
    fs::create_dir_all(machine.path("repository/models")).unwrap();
    symlink(root().join("models/nano"), machine.path("repository/models/nano")).unwrap();
    if can_be_another() {
        let output = as_nobody(&machine.path("repository")).arg("run").output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        for part in ["the bundled model cannot be packed", "outpost import", "model.path"] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }
    let secret = machine.path("secret");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    // For a user of the test's own, its file is not there.
    let secret = if can_be_another() { secret } else { machine.path("missing") };
    let login = format!("[mqtt]\nusername = 'desk'\npassword_file = {secret:?}\n");
    for (text_of_config, part) in [
        (login.clone(), "mqtt.password_file"),
        (format!("{login}host = '127.0.0.1'\n"), "mqtt.password_file"),
        ("[model]\npath = 'nowhere'\n".into(), "nowhere"),
        ("[mqtt]\nhost = '${NO_SUCH_BROKER}'\n".into(), "NO_SUCH_BROKER"),
    ] {
        let config = machine.path("outpost.toml");
        fs::write(&config, &text_of_config).unwrap();
        let output = as_nobody(&root()).args(["run", "--config"]).arg(&config).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{text_of_config}{said}");
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

#[test]
fn the_doctor_looks_as_the_user_that_is_named() {
    let machine = Machine::new();
    if !can_run(&machine) {
        return;
    }
    let mut unknown = outpost();
    let output = unknown.args(["doctor", "--user", "no-such-user"]).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no such user") && said.contains("systemd-run "), "{said}");
    if !can_be_another() {
        let output = outpost().args(["doctor", "--user", USER]).output().unwrap();
        assert!(text(&output.stderr).contains("only root can"), "{}", text(&output.stderr));
        return;
    }
    for (name, mode) in [("secret", 0o600), ("closed", 0o700)] {
        let path = machine.path(name);
        if mode == 0o700 { fs::create_dir(&path) } else { fs::write(&path, "secret") }.unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    let config = machine.path("outpost.toml");
    let text_of_config = "[mqtt]\nusername = 'desk'\npassword_file = 'secret'\noutbox = 'closed/outbox.redb'\n\
                          [audit]\npath = 'missing/audit.jsonl'\n[evidence]\nfolder = 'closed/evidence'\n";
    fs::write(&config, text_of_config).unwrap();
    let wrong = |more: &[&str]| {
        let mut doctor = outpost();
        let output = doctor.args(["doctor", "--json", "--config"]).arg(&config).args(more).output();
        let findings: Vec<serde_json::Value> =
            serde_json::from_slice(&output.unwrap().stdout).unwrap();
        let wrong = findings.iter().filter(|finding| finding["verdict"] == "wrong");
        wrong.map(|finding| finding["found"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let of_root = wrong(&[]);
    assert!(of_root.len() == 1 && of_root[0].contains("audit.path"), "{of_root:?}");
    let of_user = wrong(&["--user", USER]).join("\n");
    for key in ["mqtt.password_file", "mqtt.outbox", "audit.path", "evidence.folder"] {
        assert!(of_user.contains(key), "{key} is not in {of_user}");
    }
    assert!(fs::read_dir(machine.path("closed")).unwrap().next().is_none(), "it leaves nothing");
}
