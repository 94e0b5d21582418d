//! An endpoint for webhooks that takes everything at once.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tokio::net::TcpListener;

pub(super) struct Sink {
    listener: TcpListener,
    address: SocketAddr,
    routes: Router,
}

impl Sink {
    /// On a port of its own. `heard` is called with the id of each event that arrives.
    pub(super) async fn open(heard: impl Fn(&str) + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let heard = Arc::new(heard);
        let take = async move |headers: HeaderMap| {
            let id = headers.get("webhook-id").and_then(|id| id.to_str().ok());
            heard(id.unwrap_or_default());
            StatusCode::NO_CONTENT
        };
        Ok(Self { address: listener.local_addr()?, listener, routes: Router::new().route("/", post(take)) })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Until it is dropped.
    pub(super) async fn serve(self) -> Result<()> {
        axum::serve(self.listener, self.routes).await?;
        Ok(())
    }
}
