//! Connections are counted for as long as they live, so that a worker without any can go.

use tokio::sync::watch;

/// How many there are, and whether there ever was one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connections {
    /// Now.
    pub open: usize,
    /// Since the start.
    pub ever: bool,
}

/// One of them.
#[derive(Debug)]
pub struct Counted(watch::Sender<Connections>);

impl Counted {
    /// Counts it from now on.
    pub fn new(count: &watch::Sender<Connections>) -> Self {
        count.send_modify(|c| {
            c.open += 1;
            c.ever = true;
        });
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|c| c.open = c.open.saturating_sub(1));
    }
}
