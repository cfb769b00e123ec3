package dev.simlink.receiver;

import java.util.Collection;
import java.util.stream.Collectors;

import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.common.TopicPartition;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.kafka.listener.ConsumerAwareRebalanceListener;

/** Receives events from one Kafka topic until it is told to end (SIGTERM or Ctrl-C). */
@SpringBootApplication
public class Application {

    public static void main(String[] args) {
        SpringApplication.run(Application.class, args);
    }

    /** Says which partitions are read, so that whoever started this program knows when it is ready. */
    @Bean
    ConsumerAwareRebalanceListener announcer() {
        return new ConsumerAwareRebalanceListener() {
            @Override
            public void onPartitionsAssigned(Consumer<?, ?> consumer, Collection<TopicPartition> partitions) {
                System.out.println("assigned " + partitions.stream()
                        .map(TopicPartition::toString).sorted().collect(Collectors.joining(" ")));
            }
        };
    }
}
