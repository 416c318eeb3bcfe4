//! Avro's schemas: from their JSON, and back to the canonical form whose fingerprint names them.
//!
//! Spec: Apache Avro 1.12, "Schema Declaration", "Parsing Canonical Form", "Schema Fingerprints".

use std::collections::HashMap;

use serde_json::Value;

/// How deep schemas may nest, and values: the bound protects the stack.
pub const MAX_DEPTH: usize = 64;

/// A schema: its outermost type, and the types that have names.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    pub root: Node,
    pub named: Vec<Named>,
}

/// A type, and what its values mean besides.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub kind: Kind,
    pub logical: Option<Logical>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Array(Box<Node>),
    Map(Box<Node>),
    Union(Vec<Node>),
    /// The type at this place of [`Schema::named`].
    Named(usize),
}

/// What a value means. Logical types that are not here, or do not fit their type, mean nothing, as the spec has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logical {
    TimestampMillis,
    TimestampMicros,
    TimestampNanos,
    /// Of an unknown time zone.
    LocalTimestamp,
    Date,
    Decimal {
        scale: u32,
    },
    Uuid,
}

/// A type with a name: its full name, and what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    pub name: String,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Record(Vec<Field>),
    Enum(Vec<String>),
    Fixed(usize),
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub name: String,
    pub aliases: Vec<String>,
    pub node: Node,
    pub default: Option<Value>,
}

impl Schema {
    /// Reads a schema that may name types of the schemas before it.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str, before: &[String]) -> Result<Schema, String> {
        let mut reader = Reader::default();
        for text in before {
            reader.document(text)?;
        }
        let root = reader.document(text)?;
        Ok(Schema { root, named: reader.named })
    }

    /// The fields of the record that the schema is.
    ///
    /// # Errors
    /// When it is another type.
    pub fn fields(&self) -> Result<&[Field], String> {
        match self.body(&self.root.kind) {
            Some(Body::Record(fields)) => Ok(fields),
            _ => Err(format!("the schema is {}, where a record is wanted", self.describe(&self.root))),
        }
    }

    pub fn body(&self, kind: &Kind) -> Option<&Body> {
        match kind {
            Kind::Named(index) => self.named.get(*index).map(|named| &named.body),
            _ => None,
        }
    }

    /// What a type is, for people: ``a string``, ``the enum `Colour` ``.
    pub fn describe(&self, node: &Node) -> String {
        let plain = match (&node.kind, node.logical) {
            (_, Some(Logical::TimestampMillis | Logical::TimestampMicros | Logical::TimestampNanos)) => {
                "a timestamp"
            }
            (_, Some(Logical::LocalTimestamp)) => "a timestamp without time zone",
            (_, Some(Logical::Date)) => "a date",
            (_, Some(Logical::Decimal { .. })) => "a decimal",
            (_, Some(Logical::Uuid)) => "a uuid",
            (Kind::Null, _) => "null",
            (Kind::Boolean, _) => "a boolean",
            (Kind::Int, _) => "an int",
            (Kind::Long, _) => "a long",
            (Kind::Float, _) => "a float",
            (Kind::Double, _) => "a double",
            (Kind::Bytes, _) => "bytes",
            (Kind::String, _) => "a string",
            (Kind::Array(_), _) => "an array",
            (Kind::Map(_), _) => "a map",
            (Kind::Union(branches), _) => {
                let branches: Vec<String> = branches.iter().map(|branch| self.describe(branch)).collect();
                return branches.join(" or ");
            }
            (Kind::Named(index), _) => {
                let Some(named) = self.named.get(*index) else { return String::new() };
                let what = match named.body {
                    Body::Record(_) => "record",
                    Body::Enum(_) => "enum",
                    Body::Fixed(_) => "fixed",
                };
                return format!("the {what} `{}`", named.name);
            }
        };
        plain.to_owned()
    }

    /// The fingerprint (CRC-64-AVRO) of the canonical form.
    pub fn fingerprint(&self) -> u64 {
        let mut text = String::new();
        self.canonical(&self.root, &mut vec![false; self.named.len()], &mut text);
        crc64(text.as_bytes())
    }

    fn canonical(&self, node: &Node, told: &mut [bool], out: &mut String) {
        let plain = match &node.kind {
            Kind::Null => "\"null\"",
            Kind::Boolean => "\"boolean\"",
            Kind::Int => "\"int\"",
            Kind::Long => "\"long\"",
            Kind::Float => "\"float\"",
            Kind::Double => "\"double\"",
            Kind::Bytes => "\"bytes\"",
            Kind::String => "\"string\"",
            Kind::Array(items) => {
                out.push_str("{\"type\":\"array\",\"items\":");
                self.canonical(items, told, out);
                "}"
            }
            Kind::Map(values) => {
                out.push_str("{\"type\":\"map\",\"values\":");
                self.canonical(values, told, out);
                "}"
            }
            Kind::Union(branches) => {
                for (number, branch) in branches.iter().enumerate() {
                    out.push(if number == 0 { '[' } else { ',' });
                    self.canonical(branch, told, out);
                }
                if branches.is_empty() { "[]" } else { "]" }
            }
            Kind::Named(index) => return self.canonical_named(*index, told, out),
        };
        out.push_str(plain);
    }

    fn canonical_named(&self, index: usize, told: &mut [bool], out: &mut String) {
        let Some(Named { name, body }) = self.named.get(index) else { return };
        if told.get(index).copied().unwrap_or(true) {
            return out.push_str(&quoted(name));
        }
        if let Some(told) = told.get_mut(index) {
            *told = true;
        }
        out.push_str(&format!("{{\"name\":{},\"type\":", quoted(name)));
        match body {
            Body::Record(fields) => {
                out.push_str("\"record\",\"fields\":[");
                for (number, field) in fields.iter().enumerate() {
                    let comma = if number == 0 { "" } else { "," };
                    out.push_str(&format!("{comma}{{\"name\":{},\"type\":", quoted(&field.name)));
                    self.canonical(&field.node, told, out);
                    out.push('}');
                }
                out.push_str("]}");
            }
            Body::Enum(symbols) => {
                let symbols: Vec<String> = symbols.iter().map(|symbol| quoted(symbol)).collect();
                out.push_str(&format!("\"enum\",\"symbols\":[{}]}}", symbols.join(",")));
            }
            Body::Fixed(size) => out.push_str(&format!("\"fixed\",\"size\":{size}}}")),
        }
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// CRC-64-AVRO, as the spec has it.
fn crc64(bytes: &[u8]) -> u64 {
    const EMPTY: u64 = 0xc15d_213a_a4d7_a795;
    let step = |mut rest: u64| {
        for _ in 0..8 {
            rest = (rest >> 1) ^ (EMPTY & (rest & 1).wrapping_neg());
        }
        rest
    };
    bytes.iter().fold(EMPTY, |sum, byte| (sum >> 8) ^ step((sum ^ u64::from(*byte)) & 0xff))
}

/// Reads schemas that may name each other's types.
#[derive(Default)]
struct Reader {
    named: Vec<Named>,
    places: HashMap<String, usize>,
}

impl Reader {
    fn document(&mut self, text: &str) -> Result<Node, String> {
        let value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
        self.node(&value, "", 0)
    }

    /// A type, in a namespace.
    fn node(&mut self, value: &Value, namespace: &str, depth: usize) -> Result<Node, String> {
        if depth > MAX_DEPTH {
            return Err(format!("it is nested deeper than {MAX_DEPTH} levels"));
        }
        let plain = |kind| Ok(Node { kind, logical: None });
        match value {
            Value::String(name) => plain(self.of_name(name, namespace)?),
            Value::Array(branches) => {
                let branches: Vec<Node> = branches
                    .iter()
                    .map(|branch| self.node(branch, namespace, depth + 1))
                    .collect::<Result<_, _>>()?;
                if branches.iter().any(|branch| matches!(branch.kind, Kind::Union(_))) {
                    return Err("a union stands in a union".into());
                }
                plain(Kind::Union(branches))
            }
            Value::Object(object) => {
                let kind = match object.get("type") {
                    Some(Value::String(name)) => match name.as_str() {
                        "array" => Kind::Array(Box::new(self.part(object, "items", namespace, depth)?)),
                        "map" => Kind::Map(Box::new(self.part(object, "values", namespace, depth)?)),
                        "record" | "error" | "enum" | "fixed" => {
                            self.define(object, name, namespace, depth)?
                        }
                        name => self.of_name(name, namespace)?,
                    },
                    Some(inner) => {
                        let inner = self.node(inner, namespace, depth + 1)?;
                        if inner.logical.is_some() {
                            return Ok(inner);
                        }
                        inner.kind
                    }
                    None => return Err(format!("a type has no `type`: {}", shortened(value))),
                };
                let logical = self.logical(object, &kind);
                Ok(Node { kind, logical })
            }
            other => Err(format!("a type is a name, a list or an object, not {other}")),
        }
    }

    fn part(&mut self, object: &Object, name: &str, namespace: &str, depth: usize) -> Result<Node, String> {
        let part = object.get(name).ok_or_else(|| format!("a type has no `{name}`"))?;
        self.node(part, namespace, depth + 1)
    }

    fn of_name(&self, name: &str, namespace: &str) -> Result<Kind, String> {
        Ok(match name {
            "null" => Kind::Null,
            "boolean" => Kind::Boolean,
            "int" => Kind::Int,
            "long" => Kind::Long,
            "float" => Kind::Float,
            "double" => Kind::Double,
            "bytes" => Kind::Bytes,
            "string" => Kind::String,
            name => {
                let here = self.places.get(&full_name(name, namespace)).or_else(|| self.places.get(name));
                Kind::Named(*here.ok_or_else(|| format!("there is no type `{name}`"))?)
            }
        })
    }

    /// Takes a type with a name in. It may name itself, so its name is known before its parts are.
    fn define(&mut self, object: &Object, what: &str, namespace: &str, depth: usize) -> Result<Kind, String> {
        let text = |field: &str| object.get(field).and_then(Value::as_str);
        let short = text("name").ok_or_else(|| format!("{what}: it has no `name`"))?;
        let name = full_name(short, text("namespace").unwrap_or(namespace));
        let namespace = name.rsplit_once('.').map_or(String::new(), |(namespace, _)| namespace.to_owned());
        let index = self.named.len();
        if self.places.insert(name.clone(), index).is_some() {
            return Err(format!("the type `{name}` is there twice"));
        }
        self.named.push(Named { name: name.clone(), body: Body::Fixed(0) });
        let list = |field: &str| object.get(field).and_then(Value::as_array);
        let lacks = |field: &str| format!("`{name}` has no `{field}`");
        let body = match what {
            "enum" => {
                let symbols = list("symbols").ok_or_else(|| lacks("symbols"))?;
                let symbols = symbols.iter().map(|symbol| symbol.as_str().map(str::to_owned));
                Body::Enum(symbols.collect::<Option<_>>().ok_or_else(|| lacks("symbols"))?)
            }
            "fixed" => {
                let size = object.get("size").and_then(Value::as_u64).ok_or_else(|| lacks("size"))?;
                Body::Fixed(usize::try_from(size).map_err(|_| lacks("size"))?)
            }
            _ => {
                let fields = list("fields").ok_or_else(|| lacks("fields"))?.iter();
                let fields = fields.map(|field| self.field(field, &name, &namespace, depth));
                Body::Record(fields.collect::<Result<_, _>>()?)
            }
        };
        if let Some(named) = self.named.get_mut(index) {
            named.body = body;
        }
        Ok(Kind::Named(index))
    }

    fn field(&mut self, value: &Value, of: &str, namespace: &str, depth: usize) -> Result<Field, String> {
        let object = value.as_object().ok_or_else(|| format!("a field of `{of}` is no object"))?;
        let name = object.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| format!("a field of `{of}` has no `name`"))?.to_owned();
        let node = object.get("type").ok_or_else(|| format!("the field `{name}` of `{of}` has no `type`"))?;
        let node = self.node(node, namespace, depth + 1);
        let node = node.map_err(|reason| format!("the field `{name}` of `{of}`: {reason}"))?;
        let aliases = object.get("aliases").and_then(Value::as_array).into_iter().flatten();
        let aliases = aliases.filter_map(|alias| alias.as_str().map(str::to_owned)).collect();
        Ok(Field { name, aliases, node, default: object.get("default").cloned() })
    }

    fn logical(&self, object: &Object, kind: &Kind) -> Option<Logical> {
        let fixed = match kind {
            Kind::Named(index) => match self.named.get(*index)?.body {
                Body::Fixed(size) => Some(size),
                _ => None,
            },
            _ => None,
        };
        Some(match (object.get("logicalType")?.as_str()?, kind) {
            ("timestamp-millis", Kind::Long) => Logical::TimestampMillis,
            ("timestamp-micros", Kind::Long) => Logical::TimestampMicros,
            ("timestamp-nanos", Kind::Long) => Logical::TimestampNanos,
            ("local-timestamp-millis" | "local-timestamp-micros" | "local-timestamp-nanos", Kind::Long) => {
                Logical::LocalTimestamp
            }
            ("date", Kind::Int) => Logical::Date,
            ("uuid", Kind::String) => Logical::Uuid,
            ("uuid", _) if fixed == Some(16) => Logical::Uuid,
            ("decimal", kind) if *kind == Kind::Bytes || fixed.is_some() => {
                let scale = object.get("scale").map_or(Some(0), Value::as_u64)?;
                Logical::Decimal { scale: u32::try_from(scale).ok().filter(|scale| *scale <= 38)? }
            }
            _ => return None,
        })
    }
}

type Object = serde_json::Map<String, Value>;

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn shortened(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}
