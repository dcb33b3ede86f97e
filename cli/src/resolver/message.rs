//! As much of a DNS message as one needs to pass it on and to keep it (RFC 1035 section 4). Any bytes may come in.

use std::time::Duration;

/// Bytes of the header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// The pseudo record of extensions (RFC 6891 section 6.1).
const OPT: u16 = 41;
const SOA: u16 = 6;
/// Flags in the second and third byte of the header.
const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;
/// Most labels of a name: each has at least two bytes, and a name at most 255 (RFC 1035 section 2.3.4).
const MAX_LABELS: usize = 128;

/// What an answer says of the question (RFC 1035 section 4.1.1).
pub(crate) mod rcode {
    pub(crate) const NO_ERROR: u8 = 0;
    pub(crate) const SERVER_FAILURE: u8 = 2;
    pub(crate) const NAME_ERROR: u8 = 3;
}

/// A message whose sections were walked through once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Message<'a> {
    bytes: &'a [u8],
    /// Where the question ends.
    question_end: usize,
    records: Vec<Record>,
}

/// Where a record is, and what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Record {
    section: Section,
    kind: u16,
    /// Where its class begins; for extensions that is the size of a datagram.
    class_at: usize,
    data_at: usize,
    data_len: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Section {
    Answer,
    Authority,
    Additional,
}

impl<'a> Message<'a> {
    /// Reads a message with one question.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let counts = bytes.get(..HEADER)?;
        let count = |at: usize| usize::from(u16::from_be_bytes([counts[at], counts[at + 1]]));
        if count(4) != 1 {
            return None;
        }
        let question_end = skip_name(bytes, HEADER)? + 4;
        bytes.get(..question_end)?;
        let (mut at, mut records) = (question_end, Vec::new());
        for (section, count) in
            [(Section::Answer, count(6)), (Section::Authority, count(8)), (Section::Additional, count(10))]
        {
            for _ in 0..count {
                let record = Record::parse(bytes, at, section)?;
                at = record.data_at + record.data_len;
                records.push(record);
            }
        }
        Some(Message { bytes, question_end, records })
    }

    /// The number that belongs question and answer together.
    pub(crate) fn id(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    pub(crate) fn is_response(&self) -> bool {
        self.bytes[2] & RESPONSE != 0
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.bytes[2] & TRUNCATED != 0
    }

    /// One of [`rcode`], or another.
    pub(crate) fn rcode(&self) -> u8 {
        self.bytes[3] & 0x0f
    }

    /// The question as it stands there: name, type, class.
    pub(crate) fn question(&self) -> &'a [u8] {
        &self.bytes[HEADER..self.question_end]
    }

    /// True when this is an answer to `asked`. The letters of the name may be of another case (RFC 4343).
    pub(crate) fn answers(&self, asked: &Message<'_>) -> bool {
        self.is_response()
            && self.id() == asked.id()
            && self.question().eq_ignore_ascii_case(asked.question())
    }

    /// What two questions have in common that may be given the same answer: the question in lower case, the flags that change
    /// answers, and whether signatures are wanted. None: the question has extensions whose answer is for the asker alone.
    pub(crate) fn key(&self) -> Option<Vec<u8>> {
        let extensions = self.extensions();
        if extensions.is_some_and(|opt| opt.data_len > 0) {
            return None;
        }
        let dnssec = extensions.map_or([0, 0], |opt| [1, self.bytes[opt.class_at + 4] & 0x80]);
        // RD; AD and CD.
        let flags = [self.bytes[2] & 0x01, self.bytes[3] & 0x30];
        Some([&self.question().to_ascii_lowercase()[..], &flags, &dnssec].concat())
    }

    /// True when it says more than that there is nothing.
    pub(crate) fn has_answers(&self) -> bool {
        let answers = self.records.iter().any(|record| record.section == Section::Answer);
        answers && self.rcode() != rcode::NAME_ERROR
    }

    /// How long the answer may be kept, and zero if not at all. Of one that says that there is nothing, the authority says how
    /// long (RFC 2308 section 5).
    pub(crate) fn time_to_live(&self) -> Duration {
        let seconds = match self.rcode() {
            rcode::NO_ERROR | rcode::NAME_ERROR if !self.has_answers() => self.negative_seconds(),
            rcode::NO_ERROR => self.lasting().map(|record| self.ttl(record)).min(),
            _ => None,
        };
        Duration::from_secs(u64::from(seconds.unwrap_or(0)))
    }

    /// The message some time after it was received: every record has that much less time to live.
    pub(crate) fn aged(&self, age: Duration) -> Vec<u8> {
        let mut bytes = self.bytes.to_vec();
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        for record in self.lasting() {
            let left = self.ttl(record).saturating_sub(age);
            bytes[record.class_at + 2..record.class_at + 6].copy_from_slice(&left.to_be_bytes());
        }
        bytes
    }

    /// The extensions of the message, if it has any.
    fn extensions(&self) -> Option<&Record> {
        self.records.iter().find(|record| record.kind == OPT)
    }

    /// The records that have a time to live.
    fn lasting(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.kind != OPT)
    }

    fn ttl(&self, record: &Record) -> u32 {
        let field = self.bytes.get(record.class_at + 2..).and_then(<[u8]>::first_chunk);
        let seconds = field.map_or(0, |field| u32::from_be_bytes(*field));
        // A time with the first bit set is none (RFC 2181 section 8).
        if seconds > i32::MAX.unsigned_abs() { 0 } else { seconds }
    }

    fn negative_seconds(&self) -> Option<u32> {
        let soa = self.records.iter().find(|r| r.section == Section::Authority && r.kind == SOA)?;
        let data = self.bytes.get(soa.data_at..soa.data_at + soa.data_len)?;
        let minimum = u32::from_be_bytes(*data.last_chunk()?);
        Some(minimum.min(self.ttl(soa)))
    }
}

impl Record {
    fn parse(bytes: &[u8], at: usize, section: Section) -> Option<Self> {
        let name_end = skip_name(bytes, at)?;
        let fixed: &[u8; 10] = bytes.get(name_end..)?.first_chunk()?;
        let data_len = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let data_at = name_end + fixed.len();
        bytes.get(data_at..data_at + data_len)?;
        let kind = u16::from_be_bytes([fixed[0], fixed[1]]);
        Some(Record { section, kind, class_at: name_end + 2, data_at, data_len })
    }
}

/// Where a name ends. A pointer ends it: what it points at is of no interest here.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    for _ in 0..MAX_LABELS {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            len if len & 0xc0 == 0xc0 => return bytes.get(at + 1).map(|_| at + 2),
            len if len & 0xc0 == 0 => at += 1 + usize::from(len),
            _ => return None,
        }
    }
    None
}

/// The answer for whoever asked `question`: with its number, and its letters in their case. None: it is not readable.
pub(crate) fn addressed(answer: &[u8], question: &Message<'_>) -> Option<Vec<u8>> {
    let parsed = Message::parse(answer)?;
    let asked = question.question();
    if !parsed.question().eq_ignore_ascii_case(asked) {
        return None;
    }
    let mut bytes = answer.to_vec();
    bytes[..2].copy_from_slice(&question.id().to_be_bytes());
    bytes[HEADER..HEADER + asked.len()].copy_from_slice(asked);
    Some(bytes)
}

/// Says that nobody could be asked, or nobody knew.
pub(crate) fn failure(question: &Message<'_>) -> Vec<u8> {
    let mut bytes = question.bytes[..question.question_end].to_vec();
    bytes[2] = RESPONSE | bytes[2] & 0x79;
    // Recursion is available; CD stays.
    bytes[3] = 0x80 | bytes[3] & 0x10 | rcode::SERVER_FAILURE;
    bytes[6..HEADER].fill(0);
    bytes
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Any moment will do: only differences count.
    #[expect(clippy::disallowed_methods, reason = "the time has to begin somewhere")]
    pub(crate) fn start() -> std::time::Instant {
        std::time::Instant::now()
    }

    /// A question for `name`, with extensions if `size` is given.
    pub(crate) fn question(id: u16, name: &str, size: Option<u16>) -> Vec<u8> {
        let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
        write_name(&mut bytes, name);
        bytes.extend([0, 1, 0, 1]);
        if let Some(size) = size {
            bytes[11] = 1;
            bytes.extend([0, 0, 41]);
            bytes.extend(size.to_be_bytes());
            bytes.extend([0; 6]);
        }
        bytes
    }

    fn write_name(bytes: &mut Vec<u8>, name: &str) {
        for label in name.split('.') {
            bytes.push(label.len() as u8);
            bytes.extend(label.bytes());
        }
        bytes.push(0);
    }

    /// The answer to a question: so many addresses with a time to live, or none and how long that is so.
    pub(crate) fn answer(question: &[u8], code: u8, addresses: u16, seconds: u32) -> Vec<u8> {
        let end = Message::parse(question).unwrap().question_end;
        let mut bytes = question[..end].to_vec();
        (bytes[2], bytes[3], bytes[11]) = (0x81, 0x80 | code, 0);
        bytes[6..8].copy_from_slice(&addresses.to_be_bytes());
        for last in 0..addresses {
            bytes.extend([0xc0, 12, 0, 1, 0, 1]);
            bytes.extend(seconds.to_be_bytes());
            bytes.extend([0, 4, 192, 0, 2, last as u8]);
        }
        if addresses == 0 {
            bytes[9] = 1;
            bytes.extend([0xc0, 12, 0, 6, 0, 1]);
            bytes.extend((seconds * 2).to_be_bytes());
            bytes.extend([0, 22, 0, 0]);
            bytes.extend([0; 16]);
            bytes.extend(seconds.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn an_answer_belongs_to_one_question() {
        let asked = question(7, "www.example.org", None);
        let told = answer(&asked, 0, 2, 60);
        let belongs = |asked: &[u8]| Message::parse(&told).unwrap().answers(&Message::parse(asked).unwrap());
        assert!(belongs(&asked));
        assert!(belongs(&question(7, "WWW.example.ORG", Some(1232))));
        assert!(!belongs(&question(8, "www.example.org", None)));
        assert!(!belongs(&question(7, "ftp.example.org", None)));
        let parsed = Message::parse(&asked).unwrap();
        assert!(!parsed.answers(&parsed), "a question answers nothing");
    }

    #[test]
    fn answers_are_kept_as_long_as_they_say() {
        let asked = question(7, "www.example.org", None);
        let kept = |code, addresses, seconds| {
            Message::parse(&answer(&asked, code, addresses, seconds)).unwrap().time_to_live().as_secs()
        };
        assert_eq!(kept(rcode::NO_ERROR, 2, 60), 60);
        assert_eq!(kept(rcode::NO_ERROR, 0, 30), 30, "no data");
        assert_eq!(kept(rcode::NAME_ERROR, 0, 30), 30, "no such name");
        assert_eq!(kept(rcode::SERVER_FAILURE, 0, 30), 0);
        assert_eq!(kept(rcode::NO_ERROR, 1, 0x8000_0000), 0);
        let mut bare = answer(&asked, rcode::NAME_ERROR, 0, 30);
        let end = Message::parse(&asked).unwrap().question_end;
        bare.truncate(end);
        bare[9] = 0;
        assert_eq!(Message::parse(&bare).unwrap().time_to_live().as_secs(), 0, "nobody says how long");
    }

    #[test]
    fn an_aged_answer_lives_less_long() {
        let told = answer(&question(7, "www.example.org", None), 0, 2, 60);
        let aged = Message::parse(&told).unwrap().aged(Duration::from_secs(45));
        assert_eq!(Message::parse(&aged).unwrap().time_to_live().as_secs(), 15);
        let older = Message::parse(&told).unwrap().aged(Duration::from_secs(99));
        assert_eq!(Message::parse(&older).unwrap().time_to_live().as_secs(), 0);
    }

    #[test]
    fn what_is_kept_is_for_the_same_question_alone() {
        let key = |bytes: &[u8]| Message::parse(bytes).unwrap().key();
        let plain = question(7, "www.example.org", None);
        assert_eq!(key(&plain), key(&question(8, "WWW.Example.org", None)));
        assert_ne!(key(&plain), key(&question(7, "www.example.org", Some(1232))));
        assert_ne!(key(&plain), key(&question(7, "example.org", None)));
        let mut signed = question(7, "www.example.org", Some(1232));
        let unsigned = key(&signed);
        let at = signed.len() - 4;
        signed[at] = 0x80;
        assert_ne!(key(&signed), unsigned);
        // A cookie is between two (RFC 7873).
        let mut cookie = question(7, "www.example.org", Some(1232));
        let at = cookie.len() - 1;
        cookie[at] = 12;
        cookie.extend([0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(key(&cookie), None);
    }

    #[test]
    fn an_answer_is_given_to_whoever_asks_again() {
        let told = answer(&question(7, "www.example.org", None), 0, 1, 60);
        let again = question(9, "wWw.example.org", None);
        let again = Message::parse(&again).unwrap();
        let given = addressed(&told, &again).unwrap();
        assert!(Message::parse(&given).unwrap().answers(&again));
        assert_eq!(Message::parse(&given).unwrap().question(), again.question());
        assert_eq!(addressed(&told, &Message::parse(&question(9, "other.org", None)).unwrap()), None);
    }

    #[test]
    fn a_failure_is_an_answer() {
        let asked = question(7, "www.example.org", Some(1232));
        let asked = Message::parse(&asked).unwrap();
        let told = failure(&asked);
        let told = Message::parse(&told).unwrap();
        assert!(told.answers(&asked) && told.rcode() == rcode::SERVER_FAILURE);
    }

    #[test]
    fn no_bytes_make_it_stumble() {
        let whole = answer(&question(7, "www.example.org", Some(512)), 3, 0, 60);
        for at in 0..whole.len() {
            for value in [0, 1, 0x3f, 0x40, 0xc0, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                for bytes in [&bytes[..], &bytes[..at]] {
                    if let Some(message) = Message::parse(bytes) {
                        let _ = (message.key(), message.time_to_live(), message.aged(Duration::from_secs(1)));
                        let _ = failure(&message);
                    }
                }
            }
        }
    }
}
