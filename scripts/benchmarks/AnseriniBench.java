import io.anserini.search.SimpleSearcher;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;

/** Times Anserini's searcher query by query and reports the last of five rounds: `AnseriniBench INDEX QUERIES`. */
public class AnseriniBench {
    public static void main(String[] arguments) throws Exception {
        List<String> queries = Files.readAllLines(Path.of(arguments[1]));
        queries.removeIf(String::isBlank);
        try (SimpleSearcher searcher = new SimpleSearcher(arguments[0])) {
            searcher.set_bm25(0.9f, 0.4f);
            long[] times = new long[queries.size()];
            for (int round = 0; round < 5; round++) {
                for (int query = 0; query < times.length; query++) {
                    long started = System.nanoTime();
                    searcher.search(queries.get(query), 10);
                    times[query] = System.nanoTime() - started;
                }
            }
            Arrays.sort(times);
            double mean = Arrays.stream(times).average().orElse(0) / 1e3;
            double median = times[times.length / 2] / 1e3;
            System.out.println("{\"mean_us\": " + mean + ", \"p50_us\": " + median + "}");
        }
    }
}
