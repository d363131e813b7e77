package {{package}}

import java.io.ByteArrayOutputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * The training examples that the tasks of this app take, as serialized tf.train.Example messages.
 *
 * Made by odp-task from the tasks; make it again when a task's features change.
 */
object {{service}}Examples {
    /** Phones drop an example that is larger. */
    const val MAX_EXAMPLE_BYTES = {{max_example_bytes}}

{{constants}}

{{methods}}

    /** The bytes of a text, for features that hold strings. */
    fun utf8(text: String): ByteArray = text.toByteArray(Charsets.UTF_8)

    /** Entries come in the order of their names: one example has one serialization. */
    private fun example(vararg entries: ByteArray): ByteArray {
        val made = field(1, concatenated(entries.asList()))
        require(made.size <= MAX_EXAMPLE_BYTES) { "The example has ${made.size} bytes; phones take $MAX_EXAMPLE_BYTES" }
        return made
    }

    private fun entry(name: String, feature: ByteArray): ByteArray =
        field(1, concatenated(listOf(field(1, name.toByteArray(Charsets.UTF_8)), field(2, feature))))

    private fun strings(name: String, size: Int, vararg values: ByteArray): ByteArray {
        checkSize(name, size, values.size)
        return field(1, concatenated(values.map { field(1, it) }))
    }

    private fun floats(name: String, size: Int, vararg values: Float): ByteArray {
        checkSize(name, size, values.size)
        val packed = ByteBuffer.allocate(4 * values.size).order(ByteOrder.LITTLE_ENDIAN)
        for (value in values) packed.putInt(value.toRawBits())
        return field(2, if (values.isEmpty()) ByteArray(0) else field(1, packed.array()))
    }

    private fun integers(name: String, size: Int, vararg values: Long): ByteArray {
        checkSize(name, size, values.size)
        val packed = ByteArrayOutputStream()
        for (value in values) varint(packed, value)
        return field(3, if (values.isEmpty()) ByteArray(0) else field(1, packed.toByteArray()))
    }

    private fun checkSize(name: String, size: Int, found: Int) {
        require(found == size) { "Feature $name has $found values; the task takes $size" }
    }

    /** A field of a message that is as long as it says: tag, length, content. */
    private fun field(number: Int, content: ByteArray): ByteArray {
        val out = ByteArrayOutputStream(content.size + 8)
        varint(out, (number shl 3 or 2).toLong())
        varint(out, content.size.toLong())
        out.write(content, 0, content.size)
        return out.toByteArray()
    }

    private fun varint(out: ByteArrayOutputStream, number: Long) {
        var value = number
        while (value and 0x7FL.inv() != 0L) {
            out.write((value and 0x7F or 0x80).toInt())
            value = value ushr 7
        }
        out.write(value.toInt())
    }

    private fun concatenated(parts: List<ByteArray>): ByteArray {
        val out = ByteArrayOutputStream()
        for (part in parts) out.write(part, 0, part.size)
        return out.toByteArray()
    }
}
