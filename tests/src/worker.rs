//! A worker as a process of its own, so that it can be killed.

use std::ops::{Deref, DerefMut};

use crate::app::App;
use crate::service::Service;

/// A running worker that watches nothing; it is killed when this is dropped.
pub struct Worker(Service);

impl Worker {
    /// Starts one on the app's database, with further variables.
    ///
    /// # Panics
    /// When `emailclient-worker` is not built.
    #[must_use]
    pub fn start(app: &App, variables: &[(&str, &str)]) -> Self {
        Self(Service::start(app, "emailclient-worker", variables))
    }

    /// The most memory it has had at once, in bytes.
    ///
    /// # Panics
    /// When it has ended already.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        self.0.memory("VmHWM") as u64
    }
}

impl Deref for Worker {
    type Target = Service;
    fn deref(&self) -> &Service {
        &self.0
    }
}

impl DerefMut for Worker {
    fn deref_mut(&mut self) -> &mut Service {
        &mut self.0
    }
}
