//! Mail servers that misbehave on purpose: scripted bytes on a real socket.

use std::future::Future;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A listening server; it ends when this is dropped.
pub struct Scripted {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    task: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves every connection with `session`.
pub async fn serve<F, Fut>(session: F) -> Scripted
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(session(stream));
        }
    });
    Scripted { port, task }
}

/// Answers line by line: `reply(tag, command)` gives the bytes for each line of an IMAP client.
pub async fn imap(reply: impl Fn(&str, &str) -> Vec<u8> + Send + Sync + Clone + 'static) -> Scripted {
    serve(move |stream| {
        let reply = reply.clone();
        async move {
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            if write.write_all(b"* OK ready\r\n").await.is_err() {
                return;
            }
            while let Ok(Some(line)) = lines.next_line().await {
                let (tag, command) = line.split_once(' ').unwrap_or((&line, ""));
                if write.write_all(&reply(tag, command)).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}
