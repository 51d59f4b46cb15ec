//! `outpost run` as a service manager sees it: over a notification socket that the test made.

use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outpost_tests::broker::free_port;

use crate::demo::outpost;
use crate::program::Program;

/// What the agent says next that has this in it.
fn expect(socket: &UnixDatagram, part: &str) -> String {
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {part}: {error}"));
        let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if said.contains(part) {
            return said;
        }
    }
}

#[test]
fn a_service_manager_is_told_of_readiness_life_and_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    is_told(dir.path(), &socket, &path.display().to_string());
}

#[test]
fn a_service_manager_with_an_abstract_socket_is_told_too() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("outpost-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    is_told(dir.path(), &UnixDatagram::bind_addr(&address).unwrap(), &format!("@{name}"));
}

fn is_told(dir: &Path, socket: &UnixDatagram, name: &str) {
    let config = dir.join("outpost.toml");
    std::fs::write(&config, "[mqtt]\noutbox = 'outbox.redb'\n[agent]\ngrace_seconds = 30\n")
        .unwrap();
    socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let agent = outpost()
        .args(["run", "--config"])
        .arg(&config)
        .env("NOTIFY_SOCKET", name)
        .env("WATCHDOG_USEC", "600000")
        .env_remove("WATCHDOG_PID")
        .env("JOURNAL_STREAM", "1:1")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let loading = expect(socket, "EXTEND_TIMEOUT_USEC=");
    assert!(loading.contains("STATUS=loading the model"), "{loading}");
    expect(socket, "READY=1");
    let alive = expect(socket, "WATCHDOG=1");
    assert!(alive.contains("STATUS=idle; heard 0"), "{alive}");
    expect(socket, "WATCHDOG=1");

    let pid = agent.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    expect(socket, "STOPPING=1");
    expect(socket, "EXTEND_TIMEOUT_USEC=3");
    let output = agent.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    // The journal has its own clock and no colours.
    let is_plain = |line: &str| !line.starts_with(char::is_numeric) && !line.contains('\u{1b}');
    assert!(log.lines().all(is_plain), "{log}");
}

#[test]
fn an_agent_that_is_told_to_end_while_it_loads_ends() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("outpost.toml");
    std::fs::write(&config, "").unwrap();
    let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let mut agent = outpost()
        .args(["run", "--config"])
        .arg(&config)
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .spawn()
        .unwrap();
    expect(&socket, "STATUS=loading");
    let pid = agent.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(agent.wait().unwrap().success());
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A broker that lets only `desk` in, with this password, if mosquitto is installed.
fn guarded_broker(folder: &Path, password: &str) -> Option<(Running, u16)> {
    let (passwords, config) = (folder.join("passwords"), folder.join("mosquitto.conf"));
    let mut make = Command::new("mosquitto_passwd");
    make.args(["-b", "-c"]).arg(&passwords).args(["desk", password]);
    if !make.status().is_ok_and(|status| status.success()) {
        outpost_tests::skip("mosquitto is not installed");
        return None;
    }
    let port = free_port().unwrap();
    let text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\nuser root\n",
        passwords.display()
    );
    std::fs::write(&config, text).unwrap();
    let broker = ["mosquitto", "/usr/sbin/mosquitto"].into_iter().find_map(|program| {
        Command::new(program).arg("-c").arg(&config).stderr(Stdio::null()).spawn().ok()
    });
    let broker = Running(broker?);
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(30), "mosquitto does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some((broker, port))
}

#[test]
fn the_password_for_the_broker_is_a_credential_of_systemd() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_broker, port)) = guarded_broker(dir.path(), "of the credential") else { return };
    let credentials = dir.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::write(credentials.join("mqtt-password"), "of the credential\n").unwrap();
    let config = dir.path().join("outpost.toml");
    let text =
        format!("[mqtt]\ndevice = 'desk'\nhost = '127.0.0.1'\nport = {port}\nusername = 'desk'\n");
    std::fs::write(&config, text).unwrap();
    let mut run = outpost();
    run.args(["run", "--config"]).arg(&config).env("CREDENTIALS_DIRECTORY", &credentials);
    let _agent = Running(run.stderr(Stdio::null()).spawn().unwrap());
    let port = port.to_string();
    let heard = Command::new("mosquitto_sub")
        .args(["-p", &port, "-u", "desk", "-P", "of the credential", "-C", "1", "-W", "120"])
        .args(["-t", "outpost/desk/status"])
        .output();
    match heard {
        Ok(heard) => assert_eq!(String::from_utf8_lossy(&heard.stdout), "online\n"),
        Err(_) => outpost_tests::skip("mosquitto-clients is not installed"),
    }
}

#[test]
fn a_broker_that_refuses_stands_where_ready_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_broker, port)) = guarded_broker(dir.path(), "right") else { return };
    std::fs::write(dir.path().join("secret"), "wrong\n").unwrap();
    let config = dir.path().join("outpost.toml");
    let text = format!(
        "[mqtt]\ndevice = 'desk'\nhost = '127.0.0.1'\nport = {port}\nusername = 'desk'\npassword_file = 'secret'\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut run = outpost();
    run.args(["run", "--config"]).arg(&config);
    let said = Program::start(&mut run, &dir.path().join("log")).until("  talk ");
    let reason = "the broker does not accept user desk with this password (mqtt.username, mqtt.password_file)";
    for part in ["ready, but without its broker: device desk", reason, "-u desk -P PASSWORD -t"] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
}

#[test]
fn an_agent_whose_log_nobody_reads_runs_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("outpost.toml");
    // Nobody is there, which is logged.
    let port = free_port().unwrap();
    std::fs::write(&config, format!("[mqtt]\nhost = '127.0.0.1'\nport = {port}\n")).unwrap();
    let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let agent = outpost()
        .args(["run", "--config"])
        .arg(&config)
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .env("WATCHDOG_USEC", "600000")
        .env_remove("WATCHDOG_PID")
        .stderr(writer)
        .spawn()
        .unwrap();
    let mut agent = Running(agent);
    expect(&socket, "READY=1");
    for _ in 0..5 {
        expect(&socket, "WATCHDOG=1");
    }
    assert!(agent.0.try_wait().unwrap().is_none(), "it runs");
}

#[test]
fn the_unit_is_as_closed_as_the_documentation_says() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/outpost.service");
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", "--no-pager", "--threshold=18"]).arg(unit);
    match analyze.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
            assert!(said.contains("Overall exposure level"), "{said}");
        }
        Err(_) => outpost_tests::skip("systemd-analyze is not installed"),
    }
}
