//! The embedded broker, for a device without one: nothing to install, ends with the
//! process.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{self as unix, UnixDatagram};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rumqttd::meters::MetersLink;
use rumqttd::{Config, ConnectionSettings, RouterConfig, ServerSettings};

/// The broker cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// It cannot listen.
    #[error(
        "the embedded broker cannot listen on {address}: {source}; choose another with mqtt.listen"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// It did not start.
    #[error("the embedded broker did not come up on {0}")]
    Silent(SocketAddr),
}

/// A running broker. It cannot be stopped: its threads end with the process. Clones are the same broker.
#[derive(Clone)]
pub struct Broker {
    address: SocketAddr,
    threads: Arc<Threads>,
}

/// What shows that the broker's threads are alive.
struct Threads {
    /// Takes connections.
    server: JoinHandle<()>,
    /// An end of a channel whose other end the routing thread has.
    router: MetersLink,
}

impl Threads {
    fn are_alive(&self) -> bool {
        let gone = pin!(self.router.next());
        // It resolves when the router is gone; nothing is ever sent.
        let waits = gone.poll(&mut Context::from_waker(Waker::noop())).is_pending();
        waits && !self.server.is_finished()
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Broker {
    /// Any free port on the loopback interface.
    pub const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    /// Port on the loopback interface at which MQTT clients expect a broker.
    pub const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1883);

    const UP_WITHIN: Duration = Duration::from_secs(5);

    /// Starts a broker for packets of up to `max_packet` bytes, and waits until it accepts
    /// connections. Port 0 picks a free port.
    ///
    /// # Errors
    /// If the address is taken or not local.
    pub fn start(listen: SocketAddr, max_packet: usize) -> Result<Self, BrokerError> {
        Self::guarded(listen, max_packet, None)
    }

    /// As [`Self::start`], for clients with this user and password only.
    ///
    /// # Errors
    /// As there.
    pub fn guarded(
        listen: SocketAddr,
        max_packet: usize,
        login: Option<(String, String)>,
    ) -> Result<Self, BrokerError> {
        let refused = |source| BrokerError::Listen { address: listen, source };
        let claim = (listen.port() != 0).then(|| claim(listen)).transpose().map_err(refused)?;
        // rumqttd only logs when it cannot bind, so try first.
        let probe = TcpListener::bind(listen).map_err(refused)?;
        let address = probe.local_addr().map_err(refused)?;
        drop(probe);
        let mut broker = rumqttd::Broker::new(config(address, max_packet, login));
        let router = broker.meters().map_err(|_| BrokerError::Silent(address))?;
        let server = std::thread::Builder::new()
            .name("broker".into())
            .spawn(move || {
                let _claim = claim;
                if let Err(fault) = broker.start() {
                    tracing::error!(%fault, "the embedded broker ended");
                }
            })
            .map_err(refused)?;
        let threads = Arc::new(Threads { server, router });
        let started = Instant::now();
        while started.elapsed() < Self::UP_WITHIN {
            if TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_ok() {
                return Ok(Self { address, threads });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(BrokerError::Silent(address))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether all its threads are alive: one that panicked is not.
    pub fn is_running(&self) -> bool {
        self.threads.are_alive()
    }
}

/// A name that only one can have: no other agent tries the address while the broker is about to bind it.
fn claim(address: SocketAddr) -> io::Result<UnixDatagram> {
    let name = format!("outpost-broker-{address}");
    UnixDatagram::bind_addr(&unix::SocketAddr::from_abstract_name(name)?)
}

fn config(listen: SocketAddr, max_packet: usize, login: Option<(String, String)>) -> Config {
    let connections = ConnectionSettings {
        connection_timeout_ms: 5_000,
        max_payload_size: max_packet,
        max_inflight_count: 100,
        auth: login.map(|login| HashMap::from([login])),
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings {
        name: "outpost".into(),
        listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections,
    };
    Config {
        router: RouterConfig {
            max_connections: 1_100,
            max_outgoing_packet_count: 200,
            max_segment_size: 1 << 20,
            max_segment_count: 10,
            ..RouterConfig::default()
        },
        v4: Some(HashMap::from([("1".into(), server)])),
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_ended_is_noticed() {
        let broker = Broker::start(Broker::ANY, 1 << 20).unwrap();
        assert!(broker.is_running());
        let other = rumqttd::Broker::new(config(Broker::ANY, 1 << 20, None));
        let server = std::thread::spawn(|| panic!("a packet that nobody thought of"));
        let broken = Threads { server, router: other.meters().unwrap() };
        while !broken.server.is_finished() {
            std::thread::yield_now();
        }
        assert!(!broken.are_alive());
    }

    #[test]
    fn of_brokers_that_want_one_port_at_once_one_gets_it() {
        let free = TcpListener::bind(Broker::ANY).unwrap().local_addr().unwrap();
        let start = || std::thread::spawn(move || Broker::start(free, 1 << 20));
        let started: Vec<_> = (0..4).map(|_| start()).collect();
        let started: Vec<_> = started.into_iter().map(|thread| thread.join().unwrap()).collect();
        let (got, refused): (Vec<_>, Vec<_>) = started.iter().partition(|broker| broker.is_ok());
        assert_eq!((got.len(), refused.len()), (1, 3), "{started:?}");
        for fault in refused {
            assert!(matches!(fault, Err(BrokerError::Listen { .. })), "{fault:?}");
        }
    }
}
