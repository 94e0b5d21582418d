//! A name server on a real socket, with the records a test gives it.

use std::net::SocketAddr;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, MX, SRV};
use hickory_proto::rr::{Name, RData, Record};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// A running server; it ends when this is dropped.
pub struct NameServer {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

/// An address record.
#[must_use]
pub fn a(host: &str, address: &str) -> Record {
    Record::from_rdata(name(host), 60, RData::A(A(address.parse().unwrap())))
}

/// Where a service is; `target` `.` says that it is not offered.
#[must_use]
pub fn srv(service: &str, (priority, weight): (u16, u16), port: u16, target: &str) -> Record {
    Record::from_rdata(name(service), 60, RData::SRV(SRV::new(priority, weight, port, name(target))))
}

/// Who takes mail.
#[must_use]
pub fn mx(domain: &str, preference: u16, host: &str) -> Record {
    Record::from_rdata(name(domain), 60, RData::MX(MX::new(preference, name(host))))
}

/// Serves `records` and nothing else: a name without any is unknown.
pub async fn serve(records: Vec<Record>) -> NameServer {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let Ok(request) = Message::from_vec(&buffer[..length]) else { continue };
            let mut answer =
                Message::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
            answer.metadata.recursion_desired = true;
            answer.metadata.recursion_available = true;
            answer.add_queries(request.queries.iter().cloned());
            let Some(query) = request.queries.first() else { continue };
            let same: Vec<&Record> = records.iter().filter(|r| r.name == *query.name()).collect();
            if same.is_empty() {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            let fits = same.into_iter().filter(|r| r.record_type() == query.query_type());
            answer.add_answers(fits.cloned());
            let _ = socket.send_to(&answer.to_vec().unwrap(), peer).await;
        }
    });
    NameServer { address, task }
}
