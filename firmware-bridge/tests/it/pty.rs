//! The host's task against the simulated board, over a real pseudo-terminal.
#![cfg(feature = "std")]

use outpost_firmware_bridge::host::{self, Board, BoardError, HostConfig, PortChoice, Status};
use outpost_firmware_bridge::simulator::{Bench, Deed, Seen, Simulator};
use outpost_firmware_bridge::wire::{Action, AgentState, Check, Cue, InputKind, Message};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Far more than anything here takes; only a test that has failed waits for it.
const TIMEOUT: Duration = Duration::from_secs(20);

struct Setup {
    board: Board,
    told: mpsc::Receiver<Message>,
    status: watch::Receiver<Status>,
    bench: Bench,
    tasks: TaskTracker,
    host_stop: CancellationToken,
    port: PathBuf,
}

fn config(port: PathBuf, check: Check) -> HostConfig {
    HostConfig { port: PortChoice::Path(port), baud: 115_200, check, timeout: TIMEOUT }
}

impl Setup {
    fn new(check: Check) -> Self {
        let tasks = TaskTracker::new();
        let (simulator, bench) = Simulator::new().expect("a pseudo-terminal");
        let port = simulator.port.clone();
        tasks.spawn(simulator.run(CancellationToken::new()));
        let (board, told, mut task) = host::connect(config(port.clone(), check));
        let host_stop = CancellationToken::new();
        let stop = host_stop.clone();
        tasks.spawn(async move { task.run(stop).await });
        let status = board.status();
        Self { board, told, status, bench, tasks, host_stop, port }
    }

    async fn connected() -> Self {
        let mut setup = Self::new(Check::Crc32);
        setup.wait_for(|status| status.peer.is_some()).await;
        setup.sees(Seen::Linked(true)).await;
        setup
    }

    async fn wait_for(&mut self, is: impl FnMut(&Status) -> bool) {
        let waited = tokio::time::timeout(TIMEOUT, self.status.wait_for(is)).await;
        assert!(matches!(waited, Ok(Ok(_))), "it never came: {:?}", self.board.status().borrow());
    }

    async fn sees(&mut self, wanted: Seen) {
        let look =
            async { while self.bench.seen.recv().await.expect("the board runs") != wanted {} };
        tokio::time::timeout(TIMEOUT, look).await.unwrap_or_else(|_| panic!("never {wanted:?}"));
    }

    async fn hears(&mut self, wanted: impl Fn(&Message) -> bool) {
        let listen = async { while !wanted(&self.told.recv().await.expect("the host runs")) {} };
        tokio::time::timeout(TIMEOUT, listen).await.expect("it was told");
    }
}

#[tokio::test]
async fn commands_reach_the_board_and_readings_the_host() {
    let mut setup = Setup::connected().await;
    let (relay, _) = setup.board.channel("light/kitchen").expect("the board has it");
    assert_eq!(setup.board.command(relay, Action::On).await, Ok(None));
    setup.sees(Seen::Switched("light/kitchen", 1000)).await;
    assert_eq!(setup.board.command(relay, Action::Read).await, Ok(Some(1)));
    assert_eq!(setup.board.command(relay, Action::Level(4)).await, Err(BoardError::Unsupported));
    assert_eq!(setup.board.command(99, Action::On).await, Err(BoardError::NoChannel));
    let room = setup.board.channel("room").expect("the board has it").0;
    setup.bench.deeds.send(Deed::Temperature(-4000)).await.unwrap();
    setup.hears(|told| matches!(told, Message::Reading(reading) if reading.value == -4000)).await;
    assert_eq!(setup.board.command(room, Action::Read).await, Ok(Some(-4000)));
    assert!(setup.board.channel("cellar").is_none());
}

#[tokio::test]
async fn the_board_shows_what_the_agent_does_and_tells_of_its_button() {
    let mut setup = Setup::connected().await;
    setup.sees(Seen::Led(AgentState::Idle)).await;
    setup.board.show(AgentState::Thinking);
    setup.sees(Seen::Led(AgentState::Thinking)).await;
    setup.board.cue(Cue::Alert);
    setup.sees(Seen::Cue(Cue::Alert)).await;
    setup.bench.deeds.send(Deed::Press).await.unwrap();
    setup
        .hears(|told| matches!(told, Message::Input(input) if input.kind == InputKind::Pressed))
        .await;
    setup.bench.deeds.send(Deed::Ask("what time is it".into())).await.unwrap();
    setup.hears(|told| matches!(told, Message::Ask(ask) if ask.text == "what time is it")).await;
    setup.board.answer(1, true, &"noon ".repeat(100));
    setup.sees(Seen::Answered(true)).await;
}

#[tokio::test]
async fn a_board_that_resets_comes_back_and_is_told_the_state() {
    let mut setup = Setup::connected().await;
    setup.board.show(AgentState::Listening);
    setup.sees(Seen::Led(AgentState::Listening)).await;
    for _ in 0..3 {
        let before = setup.status.borrow().peer.as_ref().map(|peer| peer.id.boot);
        setup.bench.deeds.send(Deed::Reset).await.unwrap();
        setup
            .wait_for(|status| {
                let boot = status.peer.as_ref().map(|peer| peer.id.boot);
                boot.is_some() && boot != before
            })
            .await;
        setup.sees(Seen::Led(AgentState::Listening)).await;
    }
}

#[tokio::test]
async fn a_host_that_restarts_is_taken_up_again() {
    let mut setup = Setup::connected().await;
    setup.host_stop.cancel();
    for _ in 0..2 {
        let (board, told, mut task) = host::connect(config(setup.port.clone(), Check::Crc32));
        setup.status = board.status();
        (setup.board, setup.told) = (board, told);
        let stop = CancellationToken::new();
        let ended = stop.clone();
        setup.tasks.spawn(async move { task.run(ended).await });
        setup.wait_for(|status| status.peer.is_some()).await;
        let relay = setup.board.channel("light/kitchen").expect("the board has it").0;
        assert_eq!(setup.board.command(relay, Action::On).await, Ok(None));
        stop.cancel();
    }
}

#[tokio::test]
async fn a_board_that_is_not_heeded_waits_and_loses_nothing() {
    let mut setup = Setup::connected().await;
    setup.hears(|told| matches!(told, Message::Reading(_))).await;
    // More than the host's queue holds, in portions that the board's own queue holds.
    for value in 0..90 {
        setup.bench.deeds.send(Deed::Temperature(value)).await.unwrap();
        tokio::task::yield_now().await;
    }
    for value in 0..90 {
        let told = tokio::time::timeout(TIMEOUT, setup.told.recv()).await.expect("it was told");
        assert!(
            matches!(told, Some(Message::Reading(reading)) if reading.value == value),
            "{told:?}"
        );
    }
    assert_eq!(setup.board.status().borrow().stats.lost, 0);
}

#[tokio::test]
async fn a_board_that_checks_otherwise_is_refused_on_both_ends() {
    let mut setup = Setup::new(Check::Crc16);
    setup.wait_for(|status| status.refusal.is_some()).await;
    let refused = outpost_firmware_bridge::wire::Refusal::Check(Check::Crc16);
    setup.sees(Seen::Refused(refused)).await;
    assert_eq!(setup.board.command(0, Action::On).await, Err(BoardError::NotConnected));
}

#[tokio::test]
async fn a_port_that_is_not_there_is_told_and_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("board");
    let (board, _told, mut task) = host::connect(config(port.clone(), Check::Crc32));
    let tasks = TaskTracker::new();
    tasks.spawn(async move { task.run(CancellationToken::new()).await });
    let mut status = board.status();
    let absent = status.wait_for(|status| status.port.is_some());
    let told = tokio::time::timeout(TIMEOUT, absent).await.unwrap().unwrap().port.clone().unwrap();
    assert!(told.contains("board") && told.contains("plugged in"), "{told}");
    assert_eq!(board.command(0, Action::On).await, Err(BoardError::NotConnected));
    // The board is plugged in under the same name.
    let (simulator, _bench) = Simulator::new().unwrap();
    std::os::unix::fs::symlink(&simulator.port, &port).unwrap();
    tasks.spawn(simulator.run(CancellationToken::new()));
    let found = status.wait_for(|status| status.peer.is_some());
    tokio::time::timeout(TIMEOUT, found).await.expect("it was found").unwrap();
}
