//! A question as octets, and whether a reply repeats it (RFC 1035, 4.1; RFC 6891, 6.1).

use super::name::{Kind, Name, Question};

/// Octets of a message's header.
pub const HEADER: usize = 12;
/// What a server may send in one datagram: no path worth the name fragments it (dnsflagday.net/2020).
const DATAGRAM_MAX: u16 = 1232;
const CLASS_IN: u16 = 1;
const TYPE_OPT: u16 = 41;
const RECURSION_DESIRED: u8 = 1;

impl Kind {
    /// TYPE of RFC 1035, 3.2.2 and RFC 3596, 2.1.
    pub(super) fn code(self) -> u16 {
        match self {
            Kind::A => 1,
            Kind::Ptr => 12,
            Kind::Mx => 15,
            Kind::Txt => 16,
            Kind::Aaaa => 28,
        }
    }
}

/// Writes a query into `out`, behind what is there.
pub fn write(out: &mut Vec<u8>, id: u16, question: &Question, case: u64, edns: bool) {
    out.extend(id.to_be_bytes());
    out.extend([RECURSION_DESIRED, 0]);
    out.extend([0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    out.extend(mixed(&question.name, case));
    out.extend(question.kind.code().to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    if edns {
        // The root as owner, no extended code, version 0, no flags, no options.
        out.push(0);
        out.extend(TYPE_OPT.to_be_bytes());
        out.extend(DATAGRAM_MAX.to_be_bytes());
        out.extend([0; 6]);
    }
}

/// The name, its letters in the case that the bits of `case` say, over and over.
fn mixed(name: &Name, mut case: u64) -> impl Iterator<Item = u8> {
    // Lengths are below 64 and so no letters.
    name.as_wire().iter().map(move |&octet| {
        if !octet.is_ascii_lowercase() {
            return octet;
        }
        case = case.rotate_right(1);
        match case >> 63 {
            0 => octet,
            _ => octet.to_ascii_uppercase(),
        }
    })
}

/// How a reply repeats the question.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Echo {
    Exact,
    /// But for the case of letters.
    OtherCase,
    /// It does not: one octet of the name, the kind or the class is another, or there is no question, or two.
    Other,
}

/// Whether `message` is about what was asked. Nothing but the whole name in full is accepted: a first name has nothing to point back to.
pub fn echo(message: &[u8], question: &Question, case: u64) -> Echo {
    let name = question.name.as_wire();
    let Some((header, behind)) = message.split_first_chunk::<HEADER>() else {
        return Echo::Other;
    };
    let Some((echoed, behind)) = behind.split_at_checked(name.len()) else {
        return Echo::Other;
    };
    let code = question.kind.code().to_be_bytes();
    let class = CLASS_IN.to_be_bytes();
    if header[4..6] != [0, 1] || !behind.starts_with(&[code[0], code[1], class[0], class[1]]) {
        return Echo::Other;
    }
    if mixed(&question.name, case).eq(echoed.iter().copied()) {
        return Echo::Exact;
    }
    match name.eq_ignore_ascii_case(echoed) {
        true => Echo::OtherCase,
        false => Echo::Other,
    }
}

#[cfg(test)]
mod tests {
    use domain::base::iana::{Class, Rtype};
    use domain::base::{Message, ToName};
    use proptest::prelude::*;

    use super::*;

    fn question(name: &[u8], kind: Kind) -> Question {
        Question {
            name: Name::parse(name).unwrap(),
            kind,
        }
    }

    #[test]
    fn a_query_reads_as_what_was_asked() {
        for (kind, rtype) in [
            (Kind::A, Rtype::A),
            (Kind::Aaaa, Rtype::AAAA),
            (Kind::Ptr, Rtype::PTR),
            (Kind::Mx, Rtype::MX),
            (Kind::Txt, Rtype::TXT),
        ] {
            let mut octets = Vec::new();
            write(
                &mut octets,
                0x1234,
                &question(b"mail.example", kind),
                0b101,
                true,
            );
            let message = Message::from_octets(&octets[..]).unwrap();
            let header = message.header();
            assert_eq!(
                (header.id(), header.qr(), header.rd()),
                (0x1234, false, true)
            );
            let asked = message.sole_question().unwrap();
            assert_eq!((asked.qtype(), asked.qclass()), (rtype, Class::IN));
            assert_eq!(asked.qname().to_vec().to_string(), "MaIl.example");
            assert_eq!(message.opt().unwrap().udp_payload_size(), DATAGRAM_MAX);
        }
    }

    #[test]
    fn old_servers_are_asked_without_edns() {
        let mut octets = Vec::new();
        write(&mut octets, 1, &question(b"example", Kind::A), 0, false);
        assert_eq!(octets.len(), HEADER + 9 + 4);
        assert!(Message::from_octets(&octets[..]).unwrap().opt().is_none());
    }

    #[test]
    fn one_octet_makes_another_question() {
        let asked = question(b"a1.example", Kind::A);
        let mut octets = Vec::new();
        write(&mut octets, 7, &asked, 0b1, false);
        assert_eq!(echo(&octets, &asked, 0b1), Echo::Exact);
        assert_eq!(echo(&octets, &asked, 0b10), Echo::OtherCase);
        for at in 4..octets.len() {
            // What the counts of records say matters to whoever reads them.
            if (6..HEADER).contains(&at) {
                continue;
            }
            let mut other = octets.clone();
            other[at] ^= 1;
            assert_eq!(echo(&other, &asked, 0b1), Echo::Other, "octet {at}");
        }
        for len in 0..octets.len() {
            assert_eq!(
                echo(&octets[..len], &asked, 0b1),
                Echo::Other,
                "{len} octets"
            );
        }
    }

    proptest! {
        #[test]
        fn any_case_is_repeated_exactly(name in "[a-z0-9]{1,20}(\\.[a-z0-9]{1,30}){0,4}", case: u64, other: u64) {
            let asked = question(name.as_bytes(), Kind::Txt);
            let mut octets = Vec::new();
            write(&mut octets, 7, &asked, case, true);
            prop_assert_eq!(echo(&octets, &asked, case), Echo::Exact);
            prop_assert_ne!(echo(&octets, &asked, other), Echo::Other);
        }
    }
}
