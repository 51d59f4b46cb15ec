//! A wire between a client and a broker that a test can cut, restore to the same or another broker, or make drop what the broker says.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy)]
struct Condition {
    /// Where the wire leads; none while it is cut.
    broker: Option<SocketAddr>,
    /// Whether what the broker says is lost.
    deaf: bool,
    /// Whether nothing is taken from the client.
    blocked: bool,
    /// How often it was cut.
    cuts: u32,
}

/// The client's end; dropping it cuts the wire.
pub(super) struct Wire {
    address: SocketAddr,
    condition: watch::Sender<Condition>,
}

impl Wire {
    /// A wire to a broker.
    pub(super) async fn to(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (condition, watched) = watch::channel(Condition {
            broker: Some(broker),
            deaf: false,
            blocked: false,
            cuts: 0,
        });
        spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Some(broker) = watched.borrow().broker {
                    spawn(carry(client, broker, watched.clone()));
                }
            }
        });
        Self { address, condition }
    }

    /// Where the client connects.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections, and takes none.
    pub(super) fn cut(&self) {
        self.condition.send_modify(|condition| {
            condition.broker = None;
            condition.cuts += 1;
        });
    }

    /// Takes connections again.
    pub(super) fn restore(&self, broker: SocketAddr) {
        self.condition.send_modify(|condition| condition.broker = Some(broker));
    }

    /// Whether what the broker says is lost, as on a half-open connection.
    pub(super) fn deafen(&self, deaf: bool) {
        self.condition.send_modify(|condition| condition.deaf = deaf);
    }

    /// Whether nothing is taken from the client, as by a broker that hangs.
    pub(super) fn block(&self, blocked: bool) {
        self.condition.send_modify(|condition| condition.blocked = blocked);
    }
}

#[expect(clippy::disallowed_methods, reason = "the wire ends with the test's runtime")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

async fn carry(client: TcpStream, broker: SocketAddr, mut condition: watch::Receiver<Condition>) {
    let Ok(server) = TcpStream::connect(broker).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let watched = condition.clone();
    let cuts = condition.borrow().cuts;
    let mut open = condition.clone();
    let up = async move {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = from_client.read(&mut buffer).await?;
            let is_open = open.wait_for(|condition| !condition.blocked).await.is_ok();
            if length == 0 || !is_open {
                return std::io::Result::Ok(());
            }
            to_server.write_all(&buffer[..length]).await?;
        }
    };
    let down = async move {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = from_server.read(&mut buffer).await?;
            if length == 0 {
                return std::io::Result::Ok(());
            }
            if !watched.borrow().deaf {
                to_client.write_all(&buffer[..length]).await?;
            }
        }
    };
    tokio::select! {
        _ = up => {}
        _ = down => {}
        _ = condition.wait_for(|condition| condition.cuts != cuts) => {}
    }
}
