//! systemd: readiness, status, and a watchdog that is fed while all parts make progress. Does
//! nothing without a service manager.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use outpost_agent_core::heartbeat::Heartbeats;
use outpost_agent_core::report::Counts;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{Instant, interval};
use tracing::{debug, error, info};

/// While the model loads and at the end: how often to extend the timeout.
const EXTEND: Duration = Duration::from_secs(5);
/// By how much while the model loads.
const EXTENSION: Duration = Duration::from_secs(30);
/// At the end: the grace may be exceeded by a layer of the model.
const MARGIN: Duration = Duration::from_secs(1);
/// No more extensions after this long.
const LOADING_LIMIT: Duration = Duration::from_mins(15);
/// Interval of the status without a watchdog.
const STATUS: Duration = Duration::from_secs(10);

/// A service manager.
pub trait Manager: Send {
    /// Notifies it, if present.
    fn tell(&self, states: &[NotifyState<'_>]);
}

/// systemd, through `$NOTIFY_SOCKET`.
#[derive(Debug, Clone, Copy)]
pub struct Systemd;

impl Manager for Systemd {
    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
        if let Err(fault) = notify(&socket, states) {
            debug!(%fault, "cannot notify the service manager");
        }
    }
}

/// Sends to a socket, by its path or its abstract name (`@…`), which `sd_notify::notify` does not know.
fn notify(socket: &OsStr, states: &[NotifyState<'_>]) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
    UnixDatagram::unbound()?.send_to_addr(lines.join("\n").as_bytes(), &address)?;
    Ok(())
}

/// Asks for more time, from now on.
fn extend(time: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))
}

/// Runs `work`, extending the startup timeout meanwhile.
pub async fn loading<T>(manager: &impl Manager, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let mut due = interval(EXTEND);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            now = due.tick() => if now - started < LOADING_LIMIT {
                let status = format!("loading the model for {} s", (now - started).as_secs());
                manager.tell(&[NotifyState::Status(&status), extend(EXTENSION)]);
            }
        }
    }
}

/// The daemon is ready.
pub fn ready(manager: &impl Manager) {
    manager.tell(&[NotifyState::Ready, NotifyState::Status("ready")]);
}

/// The daemon ends: runs `work`, extending the timeout meanwhile by what is left of `grace`.
pub async fn stopping<T>(
    manager: &impl Manager,
    grace: Duration,
    work: impl Future<Output = T>,
) -> T {
    let end = Instant::now() + grace + MARGIN;
    manager.tell(&[NotifyState::Stopping, NotifyState::Status("sending what is left")]);
    let mut due = interval(EXTEND);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            now = due.tick() => if now < end {
                manager.tell(&[extend(end - now)]);
            }
        }
    }
}

/// Reports status, and feeds the watchdog while all parts make progress.
pub async fn attend(
    manager: impl Manager,
    watchdog: Option<Duration>,
    parts: Heartbeats,
    counts: watch::Receiver<Counts>,
) {
    let mut due = interval(watchdog.map_or(STATUS, |limit| limit / 3));
    let mut was_stuck = Vec::new();
    loop {
        let now = due.tick().await;
        let stuck = parts.stuck(now);
        if stuck.is_empty() {
            if !was_stuck.is_empty() {
                info!("all parts make progress again");
            }
            let status = status(&counts.borrow());
            manager.tell(&[NotifyState::Status(&status), NotifyState::Watchdog]);
        } else {
            if stuck != was_stuck {
                error!(parts = stuck.join(", "), "no progress: the watchdog is not fed");
            }
            manager.tell(&[NotifyState::Status(&format!("no progress: {}", stuck.join(", ")))]);
        }
        was_stuck = stuck;
    }
}

fn status(counts: &Counts) -> String {
    let Counts { state, utterances, asks, pictures, failed, .. } = counts;
    let state = state.as_str();
    let failed = failed + counts.overdue;
    format!("{state}; heard {utterances}, asked {asks}, looked at {pictures}, failed {failed}")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use outpost_agent_core::event::Origin;
    use outpost_agent_core::model_thread::{Model, ModelThread};
    use outpost_runtime::{Error, Finish, Generation, Request, Role, Stop, Turn, Usage};

    #[derive(Debug)]
    struct Log(mpsc::SyncSender<String>);

    impl Manager for Log {
        fn tell(&self, states: &[NotifyState<'_>]) {
            let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
            self.0.send(lines.join(" ")).expect("room");
        }
    }

    /// A model that hangs in its first layer, and does not look at the deadline, until it is let go.
    struct Stuck {
        began: mpsc::SyncSender<()>,
        gate: mpsc::Receiver<()>,
    }

    impl Model for Stuck {
        fn generate(
            &mut self,
            _request: &Request,
            _stop: &Stop,
            _say: &mut dyn FnMut(&str),
        ) -> Result<Generation, Error> {
            self.began.send(()).expect("room");
            self.gate.recv().expect("let go");
            Ok(Generation {
                text: "at last".into(),
                calls: Vec::new(),
                finish: Finish::EndOfTurn,
                confidence: None,
                usage: Usage::default(),
            })
        }

        fn warm_up(&mut self, _request: &Request) -> Result<(), Error> {
            Ok(())
        }

        fn forget(&mut self) {}
    }

    fn is_fed(log: &mpsc::Receiver<String>) -> bool {
        log.try_iter().any(|line| line.contains("WATCHDOG=1"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_that_hangs_stops_the_watchdog_from_being_fed_until_it_goes_on() {
        let parts = Heartbeats::default();
        let ((let_go, gate), (began, has_begun)) = (mpsc::sync_channel(1), mpsc::sync_channel(1));
        let load = move || Ok(Box::new(Stuck { began, gate }) as Box<dyn Model>);
        let model = ModelThread::start(load, 4, parts.part("model")).await.expect("started");
        let (told, log) = mpsc::sync_channel(1000);
        let (_counts, counted) = watch::channel(Counts::default());
        let watchdog = Some(Duration::from_secs(30));
        let request = Request::new(vec![Turn::text(Role::User, "hello")]);
        let handle = model.handle.clone();
        let mut answer =
            std::pin::pin!(handle.generate(Origin::Ask, request, Duration::from_secs(5)));
        let mut attended = std::pin::pin!(attend(Log(told), watchdog, parts.clone(), counted));
        let test = async {
            has_begun.recv().expect("the model was asked");
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert!(is_fed(&log), "the request may still come to its end");
            tokio::time::sleep(Duration::from_secs(10)).await;
            log.try_iter().for_each(drop);
            tokio::time::sleep(Duration::from_mins(2)).await;
            let lines: Vec<String> = log.try_iter().collect();
            assert!(lines.iter().all(|line| line == "STATUS=no progress: model"), "{lines:?}");
        };
        tokio::select! {
            biased;
            _ = &mut answer => panic!("it hangs"),
            () = &mut attended => panic!("nobody stopped it"),
            () = test => {}
        }
        let_go.send(()).expect("the model waits");
        assert_eq!(answer.await.expect("an answer").text, "at last");
        while !parts.stuck(Instant::now()).is_empty() {
            std::thread::yield_now();
        }
        assert!(tokio::time::timeout(Duration::from_secs(30), attended).await.is_err());
        assert!(is_fed(&log));
        model.join();
    }

    #[tokio::test(start_paused = true)]
    async fn loading_asks_for_time_and_for_no_more_than_is_reasonable() {
        let (told, log) = mpsc::sync_channel(1000);
        loading(&Log(told), tokio::time::sleep(Duration::from_hours(1))).await;
        let lines: Vec<String> = log.try_iter().collect();
        assert!(lines[1].contains("STATUS=loading the model for 5 s"), "{lines:?}");
        assert!(lines.iter().all(|line| line.contains("EXTEND_TIMEOUT_USEC=30000000")));
        assert_eq!(lines.len() as u64, LOADING_LIMIT.as_secs() / EXTEND.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_asks_for_what_is_left_of_the_grace_and_no_more() {
        let (told, log) = mpsc::sync_channel(1000);
        let work = tokio::time::sleep(Duration::from_secs(100));
        stopping(&Log(told), Duration::from_secs(12), work).await;
        let lines: Vec<String> = log.try_iter().collect();
        assert_eq!(
            lines,
            [
                "STOPPING=1 STATUS=sending what is left",
                "EXTEND_TIMEOUT_USEC=13000000",
                "EXTEND_TIMEOUT_USEC=8000000",
                "EXTEND_TIMEOUT_USEC=3000000",
            ]
        );
    }
}
