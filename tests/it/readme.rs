//! Every command of the README, run as it stands there.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use outpost_tests::{root, skip};

use crate::program::{Program, commands, path};

const README: &str = include_str!("../../README.md");

/// What becomes of a command.
enum Trial {
    /// It ends with success.
    Ends,
    /// It goes on, after it has said this, and says that by the end of its block.
    GoesOn(&'static str, &'static str),
    /// It is not run here, for this reason.
    NotHere(&'static str),
}

fn trial(command: &str) -> Trial {
    match command {
        "cargo xtask demo" => {
            Trial::NotHere("builds, and then runs `outpost demo`: tests/it/demo.rs")
        }
        "cargo xtask test" => Trial::NotHere("runs this test"),
        "outpost bench" => Trial::NotHere("takes minutes; with --quick in tests/it/bench.rs"),
        "LIBTORCH_USE_PYTORCH=1 cargo xtask setup" => {
            Trial::NotHere("wants a PyTorch, and changes the checkout")
        }
        "cargo build --release --workspace --bins" => Trial::NotHere("builds for most of an hour"),
        "outpost firmware-sim" => Trial::GoesOn("port /dev/", "channel 0"),
        run if run.starts_with("outpost run") => Trial::GoesOn("  talk ", "  talk "),
        "mosquitto_sub -t 'outpost/#' -v" => {
            Trial::GoesOn("status online", "command/light/kitchen")
        }
        _ => Trial::Ends,
    }
}

/// The files that the README takes for a user's own.
fn files(folder: &Path) {
    let samples = root().join("models/nano/samples");
    let copies = [
        ("lock_the_front_door.wav", "command.wav"),
        ("turn_on_the_kitchen_light.wav", "note.wav"),
        ("sign.png", "sign.png"),
    ];
    for (from, to) in copies {
        std::fs::copy(samples.join(from), folder.join(to)).unwrap();
    }
    std::fs::copy(root().join("tests/fixtures/inputs/sign.jpg"), folder.join("sign.jpg")).unwrap();
    let typed = std::fs::read_to_string(root().join("models/nano/eval/typed.jsonl")).unwrap();
    std::fs::write(folder.join("FILE.jsonl"), typed.lines().next().unwrap()).unwrap();
    symlink(root().join("packaging"), folder.join("packaging")).unwrap();
    symlink(root().join("models/nano/checkpoint"), folder.join("Phi-4-multimodal-instruct"))
        .unwrap();
}

/// A shell in the folder of those files, with the program that was built and a folder of its own for models.
fn shell(folder: &Path, command: &str) -> Command {
    let mut shell = Command::new("sh");
    let models = folder.join("var");
    let command = command.replace("/var/lib/outpost", &models.display().to_string());
    shell
        .args(["-c", &command])
        .current_dir(folder)
        .env("PATH", path())
        .env("XDG_CONFIG_HOME", folder.join("settings"))
        .env_remove("OUTPOST_MODEL")
        .env_remove("RUST_LOG");
    shell
}

/// The port that `outpost run` says, as the default of mosquitto's clients.
fn note_port(folder: &Path, said: &str) {
    let port = said.split(" -p ").nth(1).unwrap().split(' ').next().unwrap();
    let settings = folder.join("settings");
    if std::fs::create_dir(&settings).is_ok() {
        for client in ["mosquitto_pub", "mosquitto_sub"] {
            std::fs::write(settings.join(client), format!("-p {port}\n")).unwrap();
        }
    }
}

#[test]
fn every_command_of_the_readme_works() {
    if Command::new("mosquitto_pub").arg("--version").output().is_err() {
        return skip("mosquitto-clients is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    files(folder);
    let mut programs: Vec<(Program, &str)> = Vec::new();
    let mut ended = 0;
    for block in commands(README) {
        let first = programs.len();
        for command in block {
            match trial(command) {
                Trial::NotHere(reason) => println!("not here: {command}: {reason}"),
                Trial::Ends => {
                    let output = shell(folder, command).output().unwrap();
                    let said = [output.stdout, output.stderr].concat();
                    let said = String::from_utf8_lossy(&said);
                    assert!(output.status.success(), "{command}: {}\n{said}", output.status);
                    ended += 1;
                }
                Trial::GoesOn(part, last) => {
                    let log = folder.join(format!("log-{}", programs.len()));
                    let mut program = Program::start(&mut shell(folder, command), &log);
                    let said = program.until(part);
                    if command.starts_with("outpost run") {
                        note_port(folder, &said);
                    }
                    programs.push((program, last));
                }
            }
        }
        for (program, last) in &mut programs[first..] {
            program.until(last);
        }
    }
    assert!(ended > 10 && programs.len() > 3, "the README has commands");
}

#[test]
fn two_agents_without_a_configuration_each_say_a_command_that_reaches_them() {
    if Command::new("mosquitto_pub").arg("--version").output().is_err() {
        return skip("mosquitto-clients is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let start = |name: &str| Program::start(&mut shell(folder, "outpost run"), &folder.join(name));
    let mut agents = [start("one"), start("two")];
    let mut ports = Vec::new();
    for agent in &mut agents {
        let said = agent.until("  talk ");
        for part in ["ready: device ", "hears    nothing: ", "sees     nothing: ", "reports  on "] {
            assert!(said.contains(part), "{part} is not in:\n{said}");
        }
        let talk = said.split("  talk ").nth(1).unwrap().lines().next().unwrap().trim();
        let port = talk.split(" -p ").nth(1).unwrap().split(' ').next().unwrap();
        assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
        let listen = format!("mosquitto_sub -p {port} -v -t 'outpost/#'");
        let log = folder.join(format!("heard-{port}"));
        let mut heard = Program::start(&mut shell(folder, &listen), &log);
        heard.until("status online");
        assert!(shell(folder, talk).status().unwrap().success(), "{talk}");
        heard.until("command/light/kitchen");
        ports.push(port.to_owned());
    }
    assert_ne!(ports[0], ports[1]);
}
