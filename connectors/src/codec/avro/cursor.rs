//! Avro's binary encoding, value by value, over one record.
//!
//! Spec: Apache Avro 1.12, "Binary Encoding".

use super::schema::{Body, Kind, MAX_DEPTH, Node, Schema};

/// Where a record stops being one of its schema, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: usize,
    pub kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    Ends,
    Varint,
    Int(i64),
    Length(i64),
    Boolean(u8),
    Branch(i64),
    Symbol(i64),
    Utf8,
    Items,
    Depth,
}

impl Fault {
    /// The sentence of a dead letter.
    pub fn reason(self) -> String {
        let what = match self.kind {
            FaultKind::Ends => {
                return format!("not Avro of this schema: it breaks off after {} bytes", self.at);
            }
            FaultKind::Varint => "a number has more than 64 bits".to_owned(),
            FaultKind::Int(value) => format!("{value} does not fit an int"),
            FaultKind::Length(length) => format!("a length of {length}"),
            FaultKind::Boolean(byte) => format!("a boolean is 0x{byte:02x}"),
            FaultKind::Branch(index) => format!("a union has no branch {index}"),
            FaultKind::Symbol(index) => format!("an enum has no symbol {index}"),
            FaultKind::Utf8 => "a string is not UTF-8".to_owned(),
            FaultKind::Items => "more items than such a record can have".to_owned(),
            FaultKind::Depth => format!("nested deeper than {MAX_DEPTH} levels"),
        };
        format!("not Avro of this schema: {what} at byte {}", self.at)
    }
}

/// Items that take no bytes, as nulls do, are not bounded by the record's length; of these it may have so many.
const MAX_EMPTY_ITEMS: usize = 65_536;

/// A record being read.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    items: usize,
}

impl<'a> Cursor<'a> {
    /// From byte `at` on.
    pub fn new(bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { bytes, at, items: bytes.len() + MAX_EMPTY_ITEMS }
    }

    /// How many bytes are left.
    pub fn rest(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    #[cold]
    pub fn fault(&self, kind: FaultKind) -> Fault {
        Fault { at: self.at, kind }
    }

    #[inline]
    pub fn long(&mut self) -> Result<i64, Fault> {
        let mut value = 0u64;
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        for (number, byte) in rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * number);
            if byte & 0x80 == 0 {
                if number == 9 && *byte > 1 {
                    break;
                }
                self.at += number + 1;
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        let kind = if rest.len() < 10 { FaultKind::Ends } else { FaultKind::Varint };
        Err(Fault { at: if rest.len() < 10 { self.bytes.len() } else { self.at }, kind })
    }

    #[inline]
    pub fn int(&mut self) -> Result<i64, Fault> {
        let value = self.long()?;
        if i32::try_from(value).is_err() {
            return Err(self.fault(FaultKind::Int(value)));
        }
        Ok(value)
    }

    #[inline]
    pub fn boolean(&mut self) -> Result<bool, Fault> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            other => {
                let byte = other.first().copied().unwrap_or_default();
                Err(self.fault(FaultKind::Boolean(byte)))
            }
        }
    }

    #[inline]
    pub fn float(&mut self) -> Result<f64, Fault> {
        let bytes = self.take(4)?.first_chunk().copied().unwrap_or_default();
        Ok(f64::from(f32::from_le_bytes(bytes)))
    }

    #[inline]
    pub fn double(&mut self) -> Result<f64, Fault> {
        let bytes = self.take(8)?.first_chunk().copied().unwrap_or_default();
        Ok(f64::from_le_bytes(bytes))
    }

    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => Err(self.fault(FaultKind::Length(length))),
        }
    }

    #[inline]
    pub fn string(&mut self) -> Result<&'a str, Fault> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.fault(FaultKind::Utf8))
    }

    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(count);
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(bytes) => {
                self.at += count;
                Ok(bytes)
            }
            None => Err(Fault { at: self.bytes.len(), kind: FaultKind::Ends }),
        }
    }

    /// The branch of a union that the next value is of.
    #[inline]
    pub fn branch<'s>(&mut self, branches: &'s [Node]) -> Result<&'s Node, Fault> {
        let index = self.long()?;
        let branch = usize::try_from(index).ok().and_then(|index| branches.get(index));
        branch.ok_or_else(|| self.fault(FaultKind::Branch(index)))
    }

    /// The symbol of an enum.
    #[inline]
    pub fn symbol<'s>(&mut self, symbols: &'s [String]) -> Result<&'s str, Fault> {
        let index = self.int()?;
        let symbol = usize::try_from(index).ok().and_then(|index| symbols.get(index));
        symbol.map(String::as_str).ok_or_else(|| self.fault(FaultKind::Symbol(index)))
    }

    /// How many items the next block of an array or a map has, and how many bytes if it says so; none at its end.
    pub fn block(&mut self) -> Result<Option<(usize, Option<usize>)>, Fault> {
        let count = self.long()?;
        if count == 0 {
            return Ok(None);
        }
        let size = if count < 0 { Some(self.long()?) } else { None };
        let bytes =
            size.map(usize::try_from).transpose().map_err(|_| self.fault(FaultKind::Length(count)))?;
        let items = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        self.items = self.items.checked_sub(items).ok_or_else(|| self.fault(FaultKind::Items))?;
        Ok(Some((items, bytes)))
    }

    /// Goes past a value that nobody wants.
    pub fn skip(&mut self, schema: &Schema, node: &Node, depth: usize) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(self.fault(FaultKind::Depth));
        }
        match &node.kind {
            Kind::Null => {}
            Kind::Boolean => {
                self.boolean()?;
            }
            Kind::Int => {
                self.int()?;
            }
            Kind::Long => {
                self.long()?;
            }
            Kind::Float => {
                self.take(4)?;
            }
            Kind::Double => {
                self.take(8)?;
            }
            Kind::Bytes => {
                self.bytes()?;
            }
            Kind::String => {
                self.string()?;
            }
            Kind::Union(branches) => {
                let branch = self.branch(branches)?;
                self.skip(schema, branch, depth + 1)?;
            }
            Kind::Array(items) => self.skip_blocks(schema, items, false, depth)?,
            Kind::Map(values) => self.skip_blocks(schema, values, true, depth)?,
            Kind::Named(_) => match schema.body(&node.kind) {
                Some(Body::Record(fields)) => {
                    for field in fields {
                        self.skip(schema, &field.node, depth + 1)?;
                    }
                }
                Some(Body::Enum(symbols)) => {
                    self.symbol(symbols)?;
                }
                Some(Body::Fixed(size)) => {
                    self.take(*size)?;
                }
                None => {}
            },
        }
        Ok(())
    }

    fn skip_blocks(&mut self, schema: &Schema, node: &Node, keys: bool, depth: usize) -> Result<(), Fault> {
        while let Some((items, bytes)) = self.block()? {
            if let Some(bytes) = bytes {
                self.take(bytes)?;
                continue;
            }
            for _ in 0..items {
                if keys {
                    self.string()?;
                }
                self.skip(schema, node, depth + 1)?;
            }
        }
        Ok(())
    }
}
