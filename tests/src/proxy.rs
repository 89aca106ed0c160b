//! A network between the functions and Postgres that loses the answer to a COMMIT: the transaction happened, and whoever asked
//! for it does not know.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A simple query as Postgres's protocol frames it: `Q`, the length, the text, zero.
const COMMIT: &[u8] = b"Q\x00\x00\x00\x0bCOMMIT\x00";

#[derive(Default)]
struct Orders {
    /// The answers to so many commits are lost.
    next: AtomicUsize,
    /// And that of every so-manieth; zero: none.
    every: AtomicUsize,
    seen: AtomicUsize,
    lost: AtomicUsize,
}

impl Orders {
    fn lose_this(&self) -> bool {
        let seen = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
        let every = self.every.load(Ordering::SeqCst);
        let takes_one = |left: usize| left.checked_sub(1);
        every > 0 && seen.is_multiple_of(every) || self.next.fetch_update(Ordering::SeqCst, Ordering::SeqCst, takes_one).is_ok()
    }
}

/// Forwards connections until it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    orders: Arc<Orders>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let orders = Arc::new(Orders::default());
        let ordered = Arc::clone(&orders);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let orders = Arc::clone(&ordered);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                        forward(client, server, &orders).await;
                    }
                });
            }
        });
        Self { address, orders, task }
    }

    /// From now on the answers to so many commits are lost, and their connections with them.
    pub fn lose_commits(&self, count: usize) {
        self.orders.next.store(count, Ordering::SeqCst);
    }

    /// From now on the answer to every so-manieth commit is lost; zero: to none.
    pub fn lose_every(&self, nth: usize) {
        self.orders.every.store(nth, Ordering::SeqCst);
    }

    /// How many answers were lost so far.
    pub fn lost(&self) -> usize {
        self.orders.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut client: TcpStream, mut server: TcpStream, orders: &Orders) {
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    let mut losing = false;
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(bytes @ 1..) = read else { return };
                losing |= up[..bytes].ends_with(COMMIT) && orders.lose_this();
                if server.write_all(&up[..bytes]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(bytes @ 1..) = read else { return };
                // The server has answered, so it is done; nobody hears of it.
                if losing {
                    orders.lost.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                if client.write_all(&down[..bytes]).await.is_err() {
                    return;
                }
            }
        }
    }
}
