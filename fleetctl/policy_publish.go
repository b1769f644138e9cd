package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"mayfly/internal/canonical"
	"mayfly/internal/command"
	"mayfly/internal/hint"
	"mayfly/policies/witness"
)

var policyPublishVerb = command.Verb{
	Name:    "policy publish",
	Args:    "--dir DIR --witness URL... [-o table|json]",
	Summary: "bring the signed policy to the witnesses",
	Help: `Sends DIR/bundle.json with its signatures to each witness, and says what each answered. A bastion loads a policy only after as
many witnesses as the trust policy's witness_threshold confirm that it is the newest: publish it, then bring it to the
bastions. What a witness knows already is no error, so that it can be repeated. Exit 3 when a witness refused it: another
bundle of this version, or a newer one, was published before.

Example:

  fleetctl policy publish --dir lab --witness http://192.0.2.7:8700 --witness http://198.51.100.7:8700`,
	Run: runPolicyPublish,
}

// publishLimit is how long one witness may take.
const publishLimit = 20 * time.Second

// published is what one witness answered.
type published struct {
	URL     string `json:"url"`
	Outcome string `json:"outcome"` // "known", or the reason code of a refusal, or "unreachable"
	Detail  string `json:"detail,omitempty"`
}

func runPolicyPublish(ctx context.Context, c *command.Call) error {
	fs := c.Flags()
	dir := dirFlag(fs)
	output := fs.String("o", "table", "`form`: table or json")
	var urls []string
	fs.Func("witness", "`URL` of a witness; may be given more than once", func(s string) error {
		urls = append(urls, strings.TrimSuffix(s, "/"))
		return nil
	})
	if err := c.Parse(fs); err != nil {
		return err
	}
	if err := noArguments(fs); err != nil {
		return err
	}
	if len(urls) == 0 || (*output != "table" && *output != "json") {
		return command.Usagef("--witness URL is needed, and -o is table or json")
	}
	d := state(*dir)
	t, _, err := d.trust()
	if err != nil {
		return err
	}
	b, err := d.bundle(t, 0, time.Now())
	if err != nil {
		return err
	}
	data, sigs, err := d.bundleBytes()
	if err != nil {
		return err
	}
	body, err := canonical.Marshal(witness.Publication{Kind: witness.KindPublication, Subject: witness.SubjectPolicy, File: string(data), Signatures: string(sigs)})
	if err != nil {
		return fmt.Errorf("encoding the publication: %w", err)
	}
	var answers []published
	known, refused := 0, false
	for _, url := range urls {
		p := publishAt(ctx, url, witness.PathPublish, body)
		answers = append(answers, p)
		if p.Outcome == "known" {
			known++
		}
		refused = refused || p.Outcome != "known" && p.Outcome != "unreachable"
	}
	if err := printPublished(c.Stdout, *output, answers); err != nil {
		return err
	}
	switch {
	case refused:
		return command.Refuse(hint.New(fmt.Errorf("policy %d was not taken by every witness", b.Version), "the table says why; a newer one needs a higher version"))
	case known < len(urls):
		return hint.New(fmt.Errorf("%d of %d witnesses know policy %d; %d must confirm it", known, len(urls), b.Version, t.WitnessThreshold), "repeat it when the others can be reached")
	}
	return nil
}

func printPublished(out io.Writer, form string, answers []published) error {
	if form == "json" {
		return json.NewEncoder(out).Encode(answers)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WITNESS\tOUTCOME\tDETAIL")
	for _, p := range answers {
		fmt.Fprintf(w, "%s\t%s\t%s\n", p.URL, p.Outcome, p.Detail)
	}
	return w.Flush()
}

// publishAt sends a publication to one witness. It follows no redirect.
func publishAt(ctx context.Context, url, path string, body []byte) published {
	ctx, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	status, answer, err := post(ctx, url+path, body)
	if err != nil {
		return published{url, "unreachable", err.Error()}
	}
	if status == http.StatusOK {
		return published{URL: url, Outcome: "known"}
	}
	var refusal struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
	}
	if err := json.Unmarshal(answer, &refusal); err != nil || refusal.Code == "" || status >= http.StatusInternalServerError {
		return published{url, "unreachable", fmt.Sprintf("status %d: %.200q", status, answer)}
	}
	return published{url, strings.Trim(fmt.Sprintf("%.64q", refusal.Code), `"`), fmt.Sprintf("%.300q", refusal.Detail)} // a witness's words, for a terminal
}

func post(ctx context.Context, url string, body []byte) (status int, answer []byte, err error) {
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	answer, err = io.ReadAll(io.LimitReader(resp.Body, witness.MaxAnswer))
	return resp.StatusCode, answer, errors.Join(err, resp.Body.Close())
}
