package dev.simlink.receiver;

import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;

import com.fasterxml.jackson.databind.JsonNode;
import jakarta.annotation.PreDestroy;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.listener.BatchListenerFailedException;
import org.springframework.kafka.support.Acknowledgment;
import org.springframework.stereotype.Component;

/** Writes down the id of every event, and only then acknowledges them: killed at any moment, it loses none. */
@Component
class EventListener {

    private final String idField;
    private final OutputStream out;

    EventListener(@Value("${receiver.id-field}") String idField, @Value("${receiver.out}") String file)
            throws IOException {
        this.idField = idField;
        // Unbuffered: a line is one write to the operating system, where it outlives this process.
        this.out = file.isEmpty() ? OutputStream.nullOutputStream()
                : Files.newOutputStream(Path.of(file), StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    }

    @KafkaListener(topics = "${receiver.topic}")
    void receive(List<ConsumerRecord<String, JsonNode>> messages, Acknowledgment acknowledgment) {
        for (ConsumerRecord<String, JsonNode> message : messages) {
            JsonNode id = message.value() == null ? null : message.value().get(idField);
            if (id == null) {
                // Spring commits what stands before it, tries it again, logs it, and goes on behind it.
                throw new BatchListenerFailedException("no JSON object with a field '" + idField + "'", message);
            }
            write(id.asText());
        }
        acknowledgment.acknowledge();
    }

    private synchronized void write(String id) {
        System.out.println("event " + id);
        try {
            out.write((id + "\n").getBytes(StandardCharsets.UTF_8));
            out.flush();
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }

    @PreDestroy
    void close() throws IOException {
        out.close();
    }
}
