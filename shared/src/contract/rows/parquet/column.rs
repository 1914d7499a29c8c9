//! One column of a row group: its values as JSON, with their levels.

use parquet::basic::{ConvertedType, LogicalType, TimeUnit};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::reader::RowGroupReader;
use parquet::schema::types::ColumnDescPtr;
use serde_json::{Number, Value};

/// The values of a batch of rows. A level without a value is that of something absent.
pub(super) struct Column {
    reader: ColumnReader,
    description: ColumnDescPtr,
    levels: Levels,
    values: std::vec::IntoIter<Value>,
    /// The number of levels in the batch, and of those that were taken.
    count: usize,
    taken: usize,
}

/// The levels of a batch. A column that is always present has none.
#[derive(Default)]
struct Levels {
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
}

impl Column {
    pub(super) fn open(group: &dyn RowGroupReader, index: usize) -> Result<Self, ParquetError> {
        Ok(Self {
            reader: group.get_column_reader(index)?,
            description: group.metadata().column(index).column_descr_ptr(),
            levels: Levels::default(),
            values: Vec::new().into_iter(),
            count: 0,
            taken: 0,
        })
    }

    /// Decodes the next rows. All earlier ones must have been taken.
    pub(super) fn fill(&mut self, rows: usize) -> Result<(), ParquetError> {
        use ColumnReader as Reader;
        if self.taken != self.count {
            return Err(self.fault("has more values than its rows"));
        }
        let (column, levels) = (self.description.clone(), &mut self.levels);
        let values = match &mut self.reader {
            Reader::BoolColumnReader(reader) => read(reader, rows, levels, |value| (*value).into()),
            Reader::Int32ColumnReader(reader) => {
                read(reader, rows, levels, |value| integer(&column, i64::from(*value)))
            }
            Reader::Int64ColumnReader(reader) => {
                read(reader, rows, levels, |value| integer(&column, *value))
            }
            Reader::Int96ColumnReader(reader) => {
                read(reader, rows, levels, |value| instant(value.to_millis(), 1000))
            }
            Reader::FloatColumnReader(reader) => {
                read(reader, rows, levels, |value| real(f64::from(*value)))
            }
            Reader::DoubleColumnReader(reader) => read(reader, rows, levels, |value| real(*value)),
            Reader::ByteArrayColumnReader(reader) => {
                read(reader, rows, levels, |value| bytes(&column, value.data()))
            }
            Reader::FixedLenByteArrayColumnReader(reader) => {
                read(reader, rows, levels, |value| bytes(&column, value.data()))
            }
        };
        let values = values?.ok_or_else(|| self.fault("ends before its last row"))?;
        let has_levels = column.max_def_level() > 0;
        self.count = if has_levels { self.levels.definitions.len() } else { values.len() };
        self.taken = 0;
        self.values = values.into_iter();
        Ok(())
    }

    /// Returns the definition level of the next value.
    pub(super) fn definition(&self) -> Result<i16, ParquetError> {
        if self.taken == self.count {
            return Err(self.fault("has fewer values than its rows"));
        }
        let highest = self.description.max_def_level();
        Ok(self.levels.definitions.get(self.taken).copied().unwrap_or(highest))
    }

    /// Returns the repetition level of the next value; 0 at the end of the batch, as at the start of a row.
    pub(super) fn repetition(&self) -> i16 {
        self.levels.repetitions.get(self.taken).copied().unwrap_or(0)
    }

    /// Takes the next value, or null if only its level is there.
    pub(super) fn take(&mut self) -> Result<Value, ParquetError> {
        let is_present = self.definition()? == self.description.max_def_level();
        self.taken += 1;
        if is_present {
            self.values.next().ok_or_else(|| self.fault("lacks a value"))
        } else {
            Ok(Value::Null)
        }
    }

    fn fault(&self, reason: &str) -> ParquetError {
        ParquetError::General(format!("column {:?} {reason}", self.description.path().string()))
    }
}

/// Reads the values of so many rows with their levels; `None` if the column has fewer.
fn read<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
    levels: &mut Levels,
    convert: impl Fn(&T::T) -> Value,
) -> Result<Option<Vec<Value>>, ParquetError> {
    levels.definitions.clear();
    levels.repetitions.clear();
    let mut values = Vec::new();
    let mut done = 0;
    while done < rows {
        let (definitions, repetitions) = (&mut levels.definitions, &mut levels.repetitions);
        let (count, ..) =
            reader.read_records(rows - done, Some(definitions), Some(repetitions), &mut values)?;
        if count == 0 {
            return Ok(None);
        }
        done += count;
    }
    Ok(Some(values.iter().map(convert).collect()))
}

fn real(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn integer(column: &ColumnDescPtr, value: i64) -> Value {
    const DAY_SECONDS: i64 = 86_400;
    let per_second = |unit: &TimeUnit| match unit {
        TimeUnit::MILLIS => 1000,
        TimeUnit::MICROS => 1_000_000,
        TimeUnit::NANOS => 1_000_000_000,
    };
    match (column.logical_type_ref(), column.converted_type()) {
        (Some(LogicalType::Timestamp(time)), _) => instant(value, per_second(&time.unit)),
        (Some(LogicalType::Time(time)), _) => time_of_day(value, per_second(&time.unit)).into(),
        (_, ConvertedType::DATE) => date(value).into(),
        (_, ConvertedType::TIMESTAMP_MILLIS) => instant(value, 1000),
        (_, ConvertedType::TIMESTAMP_MICROS) => instant(value, 1_000_000),
        (_, ConvertedType::TIME_MILLIS) => time_of_day(value % (DAY_SECONDS * 1000), 1000).into(),
        (_, ConvertedType::TIME_MICROS) => time_of_day(value, 1_000_000).into(),
        (_, ConvertedType::DECIMAL) => decimal(i128::from(value), column.type_scale()).into(),
        (_, ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32) => {
            Value::from(value as u32)
        }
        (_, ConvertedType::UINT_64) => Value::from(value as u64),
        _ => Value::from(value),
    }
}

fn bytes(column: &ColumnDescPtr, bytes: &[u8]) -> Value {
    if column.converted_type() == ConvertedType::DECIMAL {
        if bytes.is_empty() || bytes.len() > size_of::<i128>() {
            return Value::Null;
        }
        // Big-endian, with the sign in the first bit.
        let sign = i128::from(bytes[0].cast_signed() >> 7);
        let unscaled = bytes.iter().fold(sign, |number, byte| number << 8 | i128::from(*byte));
        return decimal(unscaled, column.type_scale()).into();
    }
    if let (Some(LogicalType::Float16), [low, high]) = (column.logical_type_ref(), bytes) {
        return real(half(u16::from_le_bytes([*low, *high])));
    }
    str::from_utf8(bytes).map_or(Value::Null, Value::from)
}

/// Returns the value of an IEEE 754 number of 16 bits.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        0x1f => return if fraction == 0.0 { f64::INFINITY } else { f64::NAN },
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}

fn decimal(unscaled: i128, scale: i32) -> String {
    let scale = usize::try_from(scale).unwrap_or(0);
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    let point = if scale > 0 { "." } else { "" };
    format!("{sign}{whole}{point}{fraction}")
}

/// Writes a time since 1970 in ISO 8601.
fn instant(value: i64, per_second: i64) -> Value {
    let day = 86_400 * per_second;
    format!("{}T{}", date(value.div_euclid(day)), time_of_day(value.rem_euclid(day), per_second))
        .into()
}

fn time_of_day(value: i64, per_second: i64) -> String {
    let (seconds, rest) = (value / per_second, value % per_second);
    let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if rest == 0 {
        return time;
    }
    format!("{time}.{rest:0width$}", width = per_second.ilog10() as usize)
}

/// Writes a date by its days since 1970, in the Gregorian calendar (Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms").
fn date(days: i64) -> String {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
