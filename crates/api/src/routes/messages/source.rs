//! The source of a message in hand: read whole for whoever parses it, or handed out piece by piece.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use emailclient_core::access::principal::Principal;
use emailclient_core::domain::blob::{self, Source, Stored};
use emailclient_core::domain::draft::attachment;
use emailclient_core::platform::budget::Held;
use emailclient_core::platform::db::{Db, TenantTx};
use emailclient_core::platform::id::AttachmentId;
use futures::stream::try_unfold;
use mail::mime::AttachmentDecoder;

use crate::caller::Caller;
use crate::error::ApiError;
use crate::state::AppState;

/// A source and what is made of it while it is parsed, as a multiple of its size.
const PARSED: usize = 2;
/// How much of a source is in memory for each reader. Twice that while it is decoded.
const PIECE_BYTES: usize = 128 * 1024;
/// No answer takes longer, however slowly it is read.
const LONGEST: Duration = Duration::from_secs(600);

/// A source, and the share of memory that it and its parsing take.
#[derive(Debug)]
pub(super) struct InHand {
    pub(super) source: Source,
    _held: Held,
}

/// Reads a source and ends the transaction. `None`: it has just gone.
///
/// # Errors
/// 503 when the memory for it is not free in time, or the database does not answer.
pub(super) async fn in_hand(
    state: &AppState,
    caller: &Caller,
    tx: TenantTx,
    stored: Stored,
) -> Result<Option<InHand>, ApiError> {
    let (mut tx, held) = room(state, caller, tx, &stored).await?;
    let source = blob::load(&mut tx, stored).await?;
    tx.release();
    Ok(source.map(|source| InHand { source, _held: held }))
}

/// Waits until there is memory for a source; whoever waits holds no connection.
///
/// # Errors
/// As [`in_hand`].
pub(super) async fn room(
    state: &AppState,
    caller: &Caller,
    tx: TenantTx,
    stored: &Stored,
) -> Result<(TenantTx, Held), ApiError> {
    let bytes = stored.size.saturating_mul(PARSED);
    if let Some(held) = state.memory.try_take(Some(caller.tenant()), bytes) {
        return Ok((tx, held));
    }
    tx.release();
    let held = state.memory.take(Some(caller.tenant()), bytes).await?;
    Ok((caller.tx(state).await?, held))
}

/// What is handed out in pieces.
pub(in crate::routes) enum Origin {
    /// The source of a message.
    Source(Stored),
    /// A file of a draft.
    File(AttachmentId),
}

/// A part of it that is read from the database as fast as its reader takes it.
pub(in crate::routes) struct Piecewise {
    pub(in crate::routes) origin: Origin,
    /// Where in it the bytes lie.
    pub(in crate::routes) encoded: Range<usize>,
    /// What they are decoded by, if they are encoded.
    pub(in crate::routes) decoder: Option<AttachmentDecoder>,
}

struct Reading {
    db: Db,
    principal: Principal,
    from: Piecewise,
    /// Decoded bytes before the first one that is wanted.
    skip: usize,
    /// Decoded bytes still wanted.
    left: usize,
    since: Instant,
    _held: Held,
}

/// A body of `wanted`, counted in decoded bytes. A source that goes meanwhile, or a reader that takes ten minutes, ends the
/// connection, which is how HTTP/1.1 says that an answer is not whole (RFC 9112 §8).
///
/// # Errors
/// 503 when the memory for it is not free in time.
pub(super) async fn stream(
    state: &AppState,
    caller: &Caller,
    from: Piecewise,
    wanted: Range<usize>,
) -> Result<Body, ApiError> {
    let held = state.lines.take(Some(caller.tenant()), 2 * PIECE_BYTES).await?;
    let mut reading = Reading {
        db: state.db.clone(),
        principal: caller.principal.clone(),
        from,
        skip: wanted.start,
        left: wanted.len(),
        since: Instant::now(),
        _held: held,
    };
    if reading.from.decoder.is_none() {
        // What is not encoded is not read before it is wanted.
        reading.from.encoded.start += std::mem::take(&mut reading.skip);
    }
    Ok(Body::from_stream(try_unfold(reading, |mut reading| async move {
        Ok::<_, io::Error>(reading.next().await?.map(|bytes| (bytes, reading)))
    })))
}

impl Reading {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.left > 0 {
            if self.since.elapsed() > LONGEST {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let Some(mut bytes) = self.decoded().await? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes.drain(..skipped);
            bytes.truncate(self.left);
            self.left -= bytes.len();
            if !bytes.is_empty() {
                return Ok(Some(bytes.into()));
            }
        }
        Ok(None)
    }

    /// The next bytes, none at the end. A transaction for each piece: a slow reader holds no connection.
    async fn decoded(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.from.encoded.is_empty() {
            return Ok(self.from.decoder.take().map(AttachmentDecoder::finish));
        }
        let (at, length) = (self.from.encoded.start, self.from.encoded.len().min(PIECE_BYTES));
        let whose = &self.principal;
        let mut tx = self.db.within(whose.tenant, &whose.reach).await.map_err(io::Error::other)?;
        let piece = match &self.from.origin {
            Origin::Source(stored) => blob::piece(&mut tx, stored, at, length).await,
            Origin::File(id) => attachment::piece(&mut tx, *id, at, length).await,
        };
        let piece = piece.map_err(io::Error::other)?;
        tx.release();
        let piece = piece.filter(|p| !p.is_empty()).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.from.encoded.start += piece.len();
        Ok(Some(match &mut self.from.decoder {
            Some(decoder) => decoder.push(&piece),
            None => piece,
        }))
    }
}
