//! Our probe of a data path, datagram type 6: does an address answer, and does this size pass?
//!
//! ```text
//! 0     type, 6
//! 1     flags: bit 0 set in an answer; bit 1: frames in clear from where this goes are taken, on sealed networks too
//! 2..4  zero
//! 4..12 nonce, little-endian: the answer repeats the question's
//! 12..  padding of the question, zero; never answered in kind
//! ```
//!
//! The answer is never longer than the question, so a forged source address gains nothing.

use crate::counters::DropReason;

/// The type: the first byte of the datagram.
pub const TYPE: u8 = 6;
/// Length of a probe without padding, and of every answer, in bytes.
pub const LEN: usize = 12;

const FLAG_ANSWER: u8 = 0x01;
const FLAG_CLEAR: u8 = 0x02;

/// A probe or its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    /// True for an answer.
    pub answer: bool,
    /// The sender takes frames in clear from the address that this goes to, on sealed networks too.
    pub clear: bool,
    /// Drawn at random by the asker.
    pub nonce: u64,
}

impl Probe {
    /// Reads a datagram that came on the data port. Unknown flags and the padding are ignored.
    ///
    /// # Errors
    /// [`DropReason::NotOurs`] for another type, [`DropReason::TruncatedProbe`] when it is too short.
    pub fn parse(datagram: &[u8]) -> Result<Self, DropReason> {
        match datagram {
            [TYPE, flags, _, _, nonce @ ..] => {
                let nonce = nonce.first_chunk::<8>().ok_or(DropReason::TruncatedProbe)?;
                let (answer, clear) = (flags & FLAG_ANSWER != 0, flags & FLAG_CLEAR != 0);
                Ok(Probe { answer, clear, nonce: u64::from_le_bytes(*nonce) })
            }
            [TYPE, ..] => Err(DropReason::TruncatedProbe),
            _ => Err(DropReason::NotOurs),
        }
    }

    /// The twelve bytes. A question that is to show that a size passes is padded with zeros behind them.
    pub fn emit(&self) -> [u8; LEN] {
        let [a, b, c, d, e, f, g, h] = self.nonce.to_le_bytes();
        let flag = |set, flag| if set { flag } else { 0 };
        let flags = flag(self.answer, FLAG_ANSWER) | flag(self.clear, FLAG_CLEAR);
        [TYPE, flags, 0, 0, a, b, c, d, e, f, g, h]
    }

    /// The answer to a question; none to an answer, so that two hosts cannot keep each other busy. `clear`: frames in clear
    /// are taken from the asker.
    pub fn reply(&self, clear: bool) -> Option<Probe> {
        if self.answer { None } else { Some(Probe { answer: true, clear, ..*self }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_and_answer() {
        let question = Probe { answer: false, clear: false, nonce: 0x0102_0304_0506_0708 };
        let mut datagram = question.emit().to_vec();
        assert_eq!(datagram, [6, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
        datagram.resize(1400, 0);
        assert_eq!(Probe::parse(&datagram), Ok(question));
        for clear in [false, true] {
            let answer = question.reply(clear).unwrap();
            assert_eq!(Probe::parse(&answer.emit()), Ok(Probe { answer: true, clear, ..question }));
            assert_eq!(answer.emit()[1], 1 | u8::from(clear) << 1);
            assert_eq!(answer.reply(clear), None);
        }
    }

    #[test]
    fn short_and_foreign_datagrams() {
        assert_eq!(Probe::parse(&[6, 0, 0, 0, 1]), Err(DropReason::TruncatedProbe));
        assert_eq!(Probe::parse(&[6]), Err(DropReason::TruncatedProbe));
        assert_eq!(Probe::parse(&[4; 40]), Err(DropReason::NotOurs));
        assert_eq!(Probe::parse(&[]), Err(DropReason::NotOurs));
    }
}
