// Command pdu is an example of a site's own power driver, as a plugin and with the argument "exec" in its name as a program, and what the tests
// ask. A real one would speak to a PDU or a hoster's API. This one's outlet is a file, whose name is in the inventory's settings.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"mayfly/rebuild/power/sdk"
	"mayfly/rebuild/power/site"
)

func main() {
	if os.Getenv(sdk.Handshake.MagicCookieKey) != "" {
		sdk.Serve(do)
		return
	}
	data, err := io.ReadAll(io.LimitReader(os.Stdin, site.MaxMessage))
	if err != nil {
		os.Exit(1)
	}
	r, err := site.ParseRequest(data)
	if err != nil {
		os.Exit(1)
	}
	a, err := do(context.Background(), r)
	if err != nil {
		a = site.Answer{Reason: "failed", Text: err.Error()}
	}
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		os.Exit(1)
	}
}

// do is the driver. Settings are "FILE" or "FILE FAULT".
func do(_ context.Context, r site.Request) (site.Answer, error) {
	file, fault, _ := strings.Cut(r.Settings, " ")
	switch fault {
	case "crash":
		os.Exit(3)
	case "late":
		time.Sleep(time.Hour)
	case "huge":
		return site.Answer{Console: strings.Repeat("x", 2*site.MaxMessage)}, nil
	case "tell":
		return site.Answer{Reason: "no", Text: "the password is " + r.Password}, nil
	case "who":
		return site.Answer{Reason: "who", Text: fmt.Sprintf("uid %d", os.Getuid())}, nil
	}
	switch r.Do {
	case site.DoOn, site.DoOff:
		if fault == "deaf" {
			return site.Answer{}, nil
		}
		return site.Answer{}, os.WriteFile(file, []byte(r.Do), 0o600)
	case site.DoBoot:
		if fault == "deaf" {
			return site.Answer{Boot: "http://192.0.2.1/another"}, nil
		}
		return site.Answer{Boot: r.Medium}, nil
	case site.DoConsole:
		return site.Answer{Console: "up\n"}, nil
	case site.DoStatus:
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return site.Answer{Power: site.Off}, nil
		}
		return site.Answer{Power: string(data)}, err
	}
	return site.Answer{}, nil
}
