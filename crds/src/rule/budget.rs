//! Budget of a request's rules, in operations rather than time: the same request costs the same on every machine.

use super::RuleError;

/// Bound on the operations of all rules of one request. An operation is one evaluated node, one compared element, 64
/// bytes of text read, or 8 bytes of text created.
pub const OPERATIONS_MAX: u64 = 1_000_000;

const BYTES_READ: usize = 64;
const BYTES_MADE: usize = 8;

/// Remainder of [`OPERATIONS_MAX`], for one request.
#[derive(Debug)]
pub struct Budget {
    left: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: OPERATIONS_MAX }
    }
}

impl Budget {
    /// A smaller budget, to find out whether rules are expensive. Rules that exceed it fail with [`RuleError::Cost`].
    #[must_use]
    pub fn new(operations: u64) -> Self {
        Self { left: operations.min(OPERATIONS_MAX) }
    }

    /// Operations spent so far.
    #[must_use]
    pub fn spent(&self) -> u64 {
        OPERATIONS_MAX - self.left
    }

    pub(super) fn spend(&mut self, operations: u64) -> Result<(), RuleError> {
        match self.left.checked_sub(operations) {
            Some(left) => self.left = left,
            None => {
                self.left = 0;
                return Err(RuleError::Cost);
            }
        }
        Ok(())
    }

    /// Charges for reading `bytes` of text, at `weight` times the cost of a comparison.
    pub(super) fn read(&mut self, bytes: usize, weight: u64) -> Result<(), RuleError> {
        self.spend((bytes.div_ceil(BYTES_READ) as u64).saturating_mul(weight))
    }

    /// Charges for creating `bytes` of text, which bounds memory as well.
    pub(super) fn make(&mut self, bytes: usize) -> Result<(), RuleError> {
        self.spend(bytes.div_ceil(BYTES_MADE) as u64)
    }
}
