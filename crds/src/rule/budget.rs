//! What the rules of one request may cost, in operations rather than time: the same request costs the same on every
//! machine.

use super::RuleError;

/// Operations of all rules of one request. An operation is a node that is evaluated, an element that is compared, or 64
/// bytes of text that are read; 8 bytes of text that are made.
pub const OPERATIONS_MAX: u64 = 1_000_000;

const BYTES_READ: usize = 64;
const BYTES_MADE: usize = 8;

/// What is left of [`OPERATIONS_MAX`]. One for each request.
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
    /// Operations that were spent.
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

    /// Before `bytes` of text are read, `weight` times as dear as a comparison.
    pub(super) fn read(&mut self, bytes: usize, weight: u64) -> Result<(), RuleError> {
        self.spend((bytes.div_ceil(BYTES_READ) as u64).saturating_mul(weight))
    }

    /// Before `bytes` of text are made: this bounds memory as well.
    pub(super) fn make(&mut self, bytes: usize) -> Result<(), RuleError> {
        self.spend(bytes.div_ceil(BYTES_MADE) as u64)
    }
}
