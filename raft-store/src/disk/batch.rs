//! Changes to the log database that become durable together: after a crash all of them are there
//! or none is.

/// One change. Later changes of a batch override earlier ones of the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a key to a value.
    Put {
        /// The key; keys order bytewise.
        key: Vec<u8>,
        /// The value; the record codec keeps it small.
        value: Vec<u8>,
    },
    /// Removes every key in `from..to`.
    DeleteRange {
        /// The first key.
        from: Vec<u8>,
        /// The first key that stays.
        to: Vec<u8>,
    },
}

/// Changes in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
    bytes: usize,
}

impl Batch {
    /// Sets a key to a value.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        let (key, value) = (key.into(), value.into());
        self.bytes += key.len() + value.len();
        self.changes.push(Change::Put { key, value });
    }

    /// Removes every key in `from..to`, also those put earlier in this batch.
    pub fn delete_range(&mut self, from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) {
        self.changes.push(Change::DeleteRange { from: from.into(), to: to.into() });
    }

    /// The changes in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Bytes of all keys and values that are put.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
