//! Redis: limiter counters and caches. Nothing that must survive.
//!
//! Whether a Redis is one to work with is asked once, at the start, in [`eviction`].

pub mod eviction;

use std::time::Duration;

use deadpool_redis::{Config, Pool, PoolConfig, Runtime, Timeouts};

use wire::secret::Secret;

/// A pool that gives up after 250 ms: a caller then does without Redis.
///
/// # Errors
/// When the address cannot be read.
pub fn connect(url: &Secret) -> anyhow::Result<Pool> {
    let mut config = Config::from_url(url.expose());
    let wait = Some(Duration::from_millis(250));
    config.pool = Some(PoolConfig {
        max_size: 16,
        timeouts: Timeouts { wait, create: wait, recycle: wait },
        ..PoolConfig::default()
    });
    Ok(config.create_pool(Some(Runtime::Tokio1))?)
}

/// A write to Redis. One whose memory or disk is full answers to everything else.
///
/// # Errors
/// When Redis does not take it within half a second.
pub async fn takes_writes(pool: &Pool) -> anyhow::Result<()> {
    tokio::time::timeout(Duration::from_millis(500), async {
        let mut conn = pool.get().await?;
        write(&mut *conn).await?;
        Ok::<_, anyhow::Error>(())
    })
    .await?
}

/// Writes a key that goes by itself.
async fn write(conn: &mut impl redis::aio::ConnectionLike) -> redis::RedisResult<()> {
    redis::cmd("SET").arg("health:write").arg(1).arg("EX").arg(60).query_async(conn).await
}
