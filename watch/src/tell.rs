//! Change notifications of a watch.

use tokio::sync::mpsc;

/// Receiver of change notifications. `T` identifies the kind, and is sent with every name.
#[derive(Clone, Debug)]
pub enum Tell<T = ()> {
    /// No receiver.
    Nobody,
    /// The name of every changed object, including deleted ones and those that do not decode.
    Names {
        /// Identifies the kind.
        of: T,
        /// Sender of names; the watch waits while it is full.
        to: mpsc::Sender<(T, String)>,
    },
    /// A mark that something changed; one pending mark stands for any number of changes.
    Something(mpsc::Sender<()>),
}

impl<T: Copy> Tell<T> {
    /// Notifies the receiver. False when it is gone.
    pub(crate) async fn of(&self, names: Vec<String>) -> bool {
        match self {
            Self::Nobody => true,
            Self::Names { of, to } => {
                for name in names {
                    if to.send((*of, name)).await.is_err() {
                        return false;
                    }
                }
                true
            }
            // Full: a mark is pending already.
            Self::Something(to) => {
                names.is_empty() || !matches!(to.try_send(()), Err(mpsc::error::TrySendError::Closed(())))
            }
        }
    }
}
