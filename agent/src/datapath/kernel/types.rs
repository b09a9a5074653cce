//! The kernel's type information (BTF, Documentation/bpf/btf.rst), as far as it has offsets of struct members and names of
//! enumeration values. aya reads it as well, but exposes neither.

/// First bytes of the type information.
const MAGIC: u32 = 0xeb9f;
/// Bytes of what each type begins with: name, kind with the number of members, and a size or another type.
const TYPE_BYTES: usize = 12;
/// Bytes of a member of a struct: name, type, place.
const MEMBER_BYTES: usize = 12;
/// Bytes of a value of an enumeration: name, number.
const VALUE_BYTES: usize = 8;
/// Structs in structs in a struct; the kernel's go down three.
const MOST_DEPTH: u32 = 16;

/// Kinds of types that are looked into.
mod kind {
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    /// Names for another type, and what a type is qualified with.
    pub(super) const ALIASES: [u32; 5] = [8, 9, 10, 11, 18];
}

/// Type information of this machine's byte order.
pub(super) struct Types<'a> {
    list: &'a [u8],
    texts: &'a [u8],
    /// Where each type begins in the list; they are counted from 1.
    starts: Vec<usize>,
}

/// One type's beginning, taken apart.
#[derive(Clone, Copy)]
struct Head {
    at: usize,
    name: u32,
    kind: u32,
    members: usize,
    /// Places of members are a bit and, above 24 bits, a number of bits.
    bit_fields: bool,
    other: u32,
}

impl<'a> Types<'a> {
    /// Finds where each type begins. None if that can't be told: something is cut off, or of a kind that is newer than
    /// this.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if word(bytes, 0)? & 0xffff != MAGIC {
            return None;
        }
        let header = word(bytes, 4)? as usize;
        let part = |offset: usize, length: usize| {
            let start = header.checked_add(word(bytes, offset)? as usize)?;
            bytes.get(start..start.checked_add(word(bytes, length)? as usize)?)
        };
        let (list, texts) = (part(8, 12)?, part(16, 20)?);
        let mut types = Self { list, texts, starts: Vec::new() };
        let mut at = 0;
        while at < list.len() {
            let head = types.head(at)?;
            types.starts.push(at);
            at += TYPE_BYTES + body_bytes(head.kind, head.members)?;
        }
        (at == list.len()).then_some(types)
    }

    /// Names and numbers of an enumeration's values.
    pub(super) fn enumerators(&self, name: &str) -> Option<Vec<(String, u32)>> {
        let found = self.named(name, &[kind::ENUM])?;
        (0..found.members)
            .map(|index| {
                let at = found.at + TYPE_BYTES + index * VALUE_BYTES;
                let name = self.text(word(self.list, at)?)?;
                Some((String::from_utf8_lossy(name).into_owned(), word(self.list, at + 4)?))
            })
            .collect()
    }

    /// The bit at which a member begins in a struct, also one of a struct without a name in it.
    pub(super) fn member_bit(&self, of: &str, member: &str) -> Option<u32> {
        self.bit_in(self.named(of, &[kind::STRUCT])?, member.as_bytes(), MOST_DEPTH)
    }

    fn bit_in(&self, within: Head, member: &[u8], depth: u32) -> Option<u32> {
        let depth = depth.checked_sub(1)?;
        (0..within.members).find_map(|index| {
            let at = within.at + TYPE_BYTES + index * MEMBER_BYTES;
            let name = self.text(word(self.list, at)?)?;
            let place = word(self.list, at + 8)?;
            let bit = if within.bit_fields { place & 0x00ff_ffff } else { place };
            if name == member {
                return Some(bit);
            }
            if !name.is_empty() {
                return None;
            }
            let inner = self.plain(word(self.list, at + 4)?)?;
            if ![kind::STRUCT, kind::UNION].contains(&inner.kind) {
                return None;
            }
            bit.checked_add(self.bit_in(inner, member, depth)?)
        })
    }

    /// A type by its number, without the names that it has got since.
    fn plain(&self, mut number: u32) -> Option<Head> {
        for _ in 0..MOST_DEPTH {
            let head = self.head(*self.starts.get((number as usize).checked_sub(1)?)?)?;
            if !kind::ALIASES.contains(&head.kind) {
                return Some(head);
            }
            number = head.other;
        }
        None
    }

    fn named(&self, name: &str, kinds: &[u32]) -> Option<Head> {
        let heads = self.starts.iter().filter_map(|at| self.head(*at));
        let mut heads = heads.filter(|head| kinds.contains(&head.kind));
        heads.find(|head| self.text(head.name) == Some(name.as_bytes()))
    }

    fn head(&self, at: usize) -> Option<Head> {
        let (name, information) = (word(self.list, at)?, word(self.list, at + 4)?);
        Some(Head {
            at,
            name,
            kind: (information >> 24) & 0x1f,
            members: (information & 0xffff) as usize,
            bit_fields: information >> 31 != 0,
            other: word(self.list, at + 8)?,
        })
    }

    fn text(&self, offset: u32) -> Option<&'a [u8]> {
        self.texts.get(offset as usize..)?.split(|byte| *byte == 0).next()
    }
}

/// Bytes of a type behind its beginning; none for a kind that is newer than this.
fn body_bytes(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        // Pointers, forward declarations, type definitions, qualifiers, functions, floats, tags of types.
        2 | 7..=12 | 16 | 18 => 0,
        // Integers, variables, tags of declarations.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Structures, unions, sections, enumerations of 64 bits.
        kind::STRUCT | kind::UNION | 15 | 19 => MEMBER_BYTES * members,
        // Enumerations, prototypes of functions.
        kind::ENUM | 13 => VALUE_BYTES * members,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Type information that is put together by hand, as btf.rst describes it.
#[cfg(test)]
pub(super) mod made {
    use super::*;

    pub(in super::super) struct Made {
        list: Vec<u8>,
        texts: Vec<u8>,
        count: u32,
    }

    impl Made {
        pub(in super::super) fn new() -> Self {
            Self { list: Vec::new(), texts: vec![0], count: 0 }
        }

        fn text(&mut self, text: &str) -> u32 {
            if text.is_empty() {
                return 0;
            }
            let at = self.texts.len() as u32;
            self.texts.extend(text.bytes().chain([0]));
            at
        }

        /// Returns the type's number.
        pub(super) fn add(&mut self, kind: u32, name: &str, members: u32, other: u32, body: &[u32]) -> u32 {
            let name = self.text(name);
            let words = [name, kind << 24 | members, other].into_iter().chain(body.iter().copied());
            self.list.extend(words.flat_map(u32::to_ne_bytes));
            self.count += 1;
            self.count
        }

        pub(in super::super) fn enumeration(&mut self, name: &str, values: &[(&str, u32)]) {
            let body: Vec<u32> = values.iter().flat_map(|(name, value)| [self.text(name), *value]).collect();
            self.add(kind::ENUM, name, values.len() as u32, 4, &body);
        }

        /// Members with the bit at which they begin and their type.
        pub(in super::super) fn structure(&mut self, name: &str, members: &[(&str, u32, u32)]) -> u32 {
            let body = self.members(members);
            self.add(kind::STRUCT, name, members.len() as u32, 8, &body)
        }

        pub(in super::super) fn union(&mut self, name: &str, members: &[(&str, u32, u32)]) -> u32 {
            let body = self.members(members);
            self.add(kind::UNION, name, members.len() as u32, 8, &body)
        }

        /// Members with the bit at which they begin and their number of bits.
        pub(in super::super) fn bit_fields(&mut self, name: &str, members: &[(&str, u32, u32, u32)]) -> u32 {
            let body: Vec<u32> = members
                .iter()
                .flat_map(|(name, bit, bits, kind)| [self.text(name), *kind, bits << 24 | bit])
                .collect();
            self.add(1 << 7 | kind::STRUCT, name, members.len() as u32, 8, &body)
        }

        pub(in super::super) fn alias(&mut self, name: &str, of: u32) -> u32 {
            self.add(8, name, 0, of, &[])
        }

        fn members(&mut self, members: &[(&str, u32, u32)]) -> Vec<u32> {
            members.iter().flat_map(|(name, bit, kind)| [self.text(name), *kind, *bit]).collect()
        }

        pub(in super::super) fn bytes(&self) -> Vec<u8> {
            let (list, texts) = (self.list.len() as u32, self.texts.len() as u32);
            let header = [MAGIC | 1 << 16, 24, 0, list, list, texts];
            let header = header.into_iter().flat_map(u32::to_ne_bytes);
            header.chain(self.list.iter().copied()).chain(self.texts.iter().copied()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::made::Made;
    use super::*;

    fn some() -> Made {
        let mut types = Made::new();
        types.add(1, "int", 0, 4, &[32]);
        types.structure("node", &[("next", 0, 1)]);
        types.add(3, "", 0, 0, &[1, 1, 9]);
        types.add(13, "", 1, 1, &[0, 1]);
        types.add(2, "", 0, 1, &[]);
        types.add(7, "net", 0, 0, &[]);
        types.enumeration("another", &[("SKB_DROP_REASON_NO", 7)]);
        types.enumeration("skb_drop_reason", &[("SKB_CONSUMED", 1), ("odd", 40)]);
        types.structure("net", &[("count", 0, 1), ("cookie", 64, 1)]);
        types
    }

    #[test]
    fn members_and_values_are_found_by_name() {
        let bytes = some().bytes();
        let types = Types::parse(&bytes).unwrap();
        assert_eq!(types.member_bit("net", "cookie"), Some(64), "past a declaration of the same name");
        assert_eq!(types.member_bit("net", "absent"), None);
        assert_eq!(types.member_bit("absent", "cookie"), None);
        let values = types.enumerators("skb_drop_reason").unwrap();
        assert_eq!(values, [("SKB_CONSUMED".to_owned(), 1), ("odd".to_owned(), 40)]);
    }

    #[test]
    fn what_is_no_type_information_has_no_types() {
        let whole = some().bytes();
        for length in 0..whole.len() {
            // Cut off in the middle, the parts don't lie inside.
            assert!(Types::parse(&whole[..length]).is_none(), "{length} bytes");
        }
        assert!(Types::parse(&[0; 64]).is_none());
        let mut types = Made::new();
        types.add(31, "of a later kernel", 3, 0, &[]);
        types.enumeration("skb_drop_reason", &[("SKB_CONSUMED", 1)]);
        assert!(Types::parse(&types.bytes()).is_none(), "what follows can't be found");
    }

    #[test]
    fn a_struct_that_holds_itself_ends() {
        let mut types = Made::new();
        types.structure("net", &[("", 0, 1)]);
        let alias = types.alias("loop", 2);
        types.structure("other", &[("", 0, alias)]);
        let bytes = types.bytes();
        let types = Types::parse(&bytes).unwrap();
        assert_eq!(types.member_bit("net", "cookie"), None);
        assert_eq!(types.member_bit("other", "cookie"), None);
    }
}
