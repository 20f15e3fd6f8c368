//! The types that are written in PostgreSQL's binary format. Every other type is written as text and cast.

use tokio_postgres::types::Type;

/// How the values of a column are written. Limits come from the type modifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColumnType {
    /// `text`, `varchar`, `char(n)`: at most this many characters.
    Text {
        /// The declared length, in characters.
        characters_max: Option<usize>,
    },
    /// `boolean`.
    Bool,
    /// `smallint`.
    Int2,
    /// `integer`.
    Int4,
    /// `bigint`.
    Int8,
    /// `numeric`, with or without precision and scale.
    Numeric {
        /// Precision and scale.
        modifier: Option<(i64, i64)>,
    },
    /// `real`.
    Float4,
    /// `double precision`.
    Float8,
    /// `timestamptz` or `timestamp` (in UTC), with this many digits of fractional seconds.
    Timestamp {
        /// Whether it is `timestamptz`.
        zoned: bool,
        /// Digits of fractional seconds.
        digits: u32,
    },
    /// `date`.
    Date,
    /// `uuid`.
    Uuid,
    /// `json`.
    Json,
    /// `jsonb`.
    Jsonb,
    /// `bytea`.
    Bytea,
    /// `text[]`, `numeric[]` or `bytea[]`.
    Array(ArrayElement),
    /// Like `Array`, but written as text and cast by PostgreSQL.
    ArrayText(ArrayElement),
    /// An enum: written as the text of its label.
    Enum,
    /// Any other type: written as text and cast by PostgreSQL.
    Other,
}

/// The element type of an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArrayElement {
    /// `text`.
    Text,
    /// `numeric` without precision.
    Numeric,
    /// `bytea`.
    Bytea,
}

impl ArrayElement {
    /// How the elements are written.
    pub fn column_type(self) -> ColumnType {
        match self {
            Self::Text => ColumnType::Text { characters_max: None },
            Self::Numeric => ColumnType::Numeric { modifier: None },
            Self::Bytea => ColumnType::Bytea,
        }
    }
}

impl ColumnType {
    /// The column type of a base type with its modifier.
    pub fn from_catalog(name: &str, typtype: &str, builtin: bool, modifier: i32) -> Self {
        if typtype == "e" {
            return Self::Enum;
        }
        if !builtin {
            return Self::Other;
        }
        // PostgreSQL adds the four bytes of a varlena header to lengths and precisions.
        let without_header = usize::try_from(modifier - 4).ok();
        match name {
            "text" => Self::Text { characters_max: None },
            "varchar" | "bpchar" => Self::Text { characters_max: without_header },
            "bool" => Self::Bool,
            "int2" => Self::Int2,
            "int4" => Self::Int4,
            "int8" => Self::Int8,
            "numeric" => Self::Numeric { modifier: without_header.map(numeric_modifier) },
            "float4" => Self::Float4,
            "float8" => Self::Float8,
            "timestamptz" => Self::Timestamp { zoned: true, digits: u32::try_from(modifier).unwrap_or(6) },
            "timestamp" => Self::Timestamp { zoned: false, digits: u32::try_from(modifier).unwrap_or(6) },
            "date" => Self::Date,
            "uuid" => Self::Uuid,
            "json" => Self::Json,
            "jsonb" => Self::Jsonb,
            "bytea" => Self::Bytea,
            "_text" => Self::Array(ArrayElement::Text),
            "_numeric" if without_header.is_none() => Self::Array(ArrayElement::Numeric),
            "_bytea" => Self::Array(ArrayElement::Bytea),
            _ => Self::Other,
        }
    }

    /// Whether values are written as text that PostgreSQL casts.
    pub fn needs_cast(self) -> bool {
        matches!(self, Self::Other | Self::ArrayText(_))
    }

    /// The type of an array parameter that holds such values.
    pub fn array_type(self) -> Type {
        match self {
            // PostgreSQL has no type for an array of arrays; the catalog marks such columns to be sent as text and
            // cast.
            Self::Text { .. } | Self::Enum | Self::Other | Self::Array(_) | Self::ArrayText(_) => Type::TEXT_ARRAY,
            Self::Bytea => Type::BYTEA_ARRAY,
            Self::Bool => Type::BOOL_ARRAY,
            Self::Int2 => Type::INT2_ARRAY,
            Self::Int4 => Type::INT4_ARRAY,
            Self::Int8 => Type::INT8_ARRAY,
            Self::Numeric { .. } => Type::NUMERIC_ARRAY,
            Self::Float4 => Type::FLOAT4_ARRAY,
            Self::Float8 => Type::FLOAT8_ARRAY,
            Self::Timestamp { zoned: true, .. } => Type::TIMESTAMPTZ_ARRAY,
            Self::Timestamp { zoned: false, .. } => Type::TIMESTAMP_ARRAY,
            Self::Date => Type::DATE_ARRAY,
            Self::Uuid => Type::UUID_ARRAY,
            Self::Json => Type::JSON_ARRAY,
            Self::Jsonb => Type::JSONB_ARRAY,
        }
    }

    /// The type of one element of [`ColumnType::array`].
    pub fn element_type(self) -> Type {
        if let tokio_postgres::types::Kind::Array(element) = self.array_type().kind() {
            element.clone()
        } else {
            Type::TEXT
        }
    }
}

/// The type modifier for the numbers in a declaration, such as `numeric(12,2)`; -1 if it has none.
pub fn modifier(typname: &str, declaration: &str) -> i32 {
    let inner = declaration.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    let numbers: Vec<i32> = inner
        .map(|(list, _)| list.split(',').filter_map(|text| text.trim().parse().ok()).collect())
        .unwrap_or_default();
    match (typname.trim_start_matches('_'), &numbers[..]) {
        ("numeric", [precision]) => (precision << 16) + 4,
        ("numeric", [precision, scale]) => ((precision << 16) | (scale & 0x7ff)) + 4,
        ("varchar" | "bpchar", [length]) => length + 4,
        ("timestamptz" | "timestamp", [digits]) => *digits,
        _ => -1,
    }
}

/// Unpacks precision and scale; since PostgreSQL 15, the scale is a signed 11-bit number.
fn numeric_modifier(packed: usize) -> (i64, i64) {
    let scale = (packed & 0x7ff) as i64;
    ((packed >> 16) as i64, if scale >= 0x400 { scale - 0x800 } else { scale })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_type_matches_the_type_in_the_catalog() {
        let column_type =
            |typname: &str, declaration| ColumnType::from_catalog(typname, "b", true, modifier(typname, declaration));
        assert_eq!(column_type("numeric", "numeric(12,2)"), ColumnType::Numeric { modifier: Some((12, 2)) });
        assert_eq!(column_type("numeric", "decimal( 5 )"), ColumnType::Numeric { modifier: Some((5, 0)) });
        assert_eq!(column_type("numeric", "numeric"), ColumnType::Numeric { modifier: None });
        assert_eq!(column_type("varchar", "character varying(7)"), ColumnType::Text { characters_max: Some(7) });
        assert_eq!(column_type("timestamptz", "timestamptz(3)"), ColumnType::Timestamp { zoned: true, digits: 3 });
        assert_eq!(column_type("timestamptz", "timestamptz"), ColumnType::Timestamp { zoned: true, digits: 6 });
        assert_eq!(column_type("_numeric", "numeric(9,1)[]"), ColumnType::Other);
    }
}
