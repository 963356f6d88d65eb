// Command probe is what the smoke test's pods run.
//
//	probe serve ADDRESS    answer every request with this pod's name
//	probe get URL COUNT    ask COUNT times, each time anew, and print the distinct answers, one a line
package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// answerLimit bounds what is read of one answer.
const answerLimit = 1 << 20

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) == 3 && args[0] == "get":
		count, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return get(args[1], count)
	}
	return errors.New("use serve ADDRESS or get URL COUNT")
}

func serve(address string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	go func() {
		end := make(chan os.Signal, 1)
		signal.Notify(end, syscall.SIGTERM)
		<-end
		os.Exit(0)
	}()
	fmt.Println("serving on", address)
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(r.Method, r.URL.Path)
		fmt.Fprintln(w, name)
	}))
}

func get(url string, count int) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var seen []string
	for range count {
		response, err := client.Get(url)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
		response.Body.Close()
		if err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, response.Status)
		}
		if text := string(body); !slices.Contains(seen, text) {
			seen = append(seen, text)
			fmt.Print(text)
		}
	}
	return nil
}
