package omaha

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Bounds of a request.
const (
	MaxBody   = 64 << 10
	maxDepth  = 6
	maxNodes  = 512
	maxApps   = 8
	maxEvents = 32
	maxText   = 256 // of an attribute
)

// Request is what a host sends; what decides nothing is not in it.
type Request struct {
	XMLName  xml.Name `xml:"request"`
	Protocol string   `xml:"protocol,attr"`
	UserID   string   `xml:"userid,attr"`
	Apps     []App    `xml:"app"`
}

// App is one application of a request.
type App struct {
	ID          string    `xml:"appid,attr"`
	Version     string    `xml:"version,attr"`
	Track       string    `xml:"track,attr"`
	MachineID   string    `xml:"machineid,attr"` // update_engine's own
	Ping        *struct{} `xml:"ping"`
	UpdateCheck *struct{} `xml:"updatecheck"`
	Events      []Event   `xml:"event"`
}

// Event is a step of an update that ended.
type Event struct {
	Type   int `xml:"eventtype,attr"`
	Result int `xml:"eventresult,attr"`
	Error  int `xml:"errorcode,attr"`
}

// Specification constants: the events that matter here (Omaha 3.0; update_engine).
const (
	EventComplete    = 3 // of the whole update
	ResultError      = 0
	ResultSuccess    = 1 // it restarts next
	ResultRestarted  = 2
	protocolVersion  = "3.0"
	statusOK         = "ok"
	statusNoUpdate   = "noupdate"
	statusUnknownApp = "error-unknownApplication"
)

// Parse reads a request. It takes no document types, entities of its own or processing instructions but the first line, nothing deep and nothing long.
func Parse(body []byte) (Request, error) {
	if len(body) > MaxBody {
		return Request{}, fmt.Errorf("longer than %d bytes", MaxBody)
	}
	if !utf8.Valid(body) {
		return Request{}, errors.New("not UTF-8")
	}
	if err := shape(body); err != nil {
		return Request{}, err
	}
	var r Request
	if err := xml.Unmarshal(body, &r); err != nil {
		return Request{}, errors.New("no request of the protocol")
	}
	switch {
	case r.XMLName.Space != "":
		return Request{}, errors.New("no request of the protocol")
	case r.Protocol != protocolVersion:
		return Request{}, fmt.Errorf("protocol %q, want %s", r.Protocol, protocolVersion)
	case len(r.Apps) == 0 || len(r.Apps) > maxApps:
		return Request{}, fmt.Errorf("%d apps, want 1 to %d", len(r.Apps), maxApps)
	}
	for _, a := range r.Apps {
		if a.ID == "" || a.Version == "" {
			return Request{}, errors.New("an app without appid or version")
		}
		if len(a.Events) > maxEvents {
			return Request{}, fmt.Errorf("more than %d events", maxEvents)
		}
	}
	return r, nil
}

// shape looks at a document's tokens before anything is made of them.
func shape(body []byte) error {
	d := xml.NewDecoder(bytes.NewReader(body))
	depth, nodes, roots := 0, 0, 0
	for {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			if depth != 0 || roots != 1 {
				return errors.New("not one whole document")
			}
			return nil
		}
		if err != nil {
			return errors.New("no XML")
		}
		if nodes++; nodes > maxNodes {
			return fmt.Errorf("more than %d parts", maxNodes)
		}
		switch t := token.(type) {
		case xml.Directive:
			return errors.New("a document type")
		case xml.ProcInst:
			if t.Target != "xml" || nodes != 1 {
				return errors.New("a processing instruction")
			}
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return fmt.Errorf("deeper than %d", maxDepth)
			}
			if depth == 1 {
				roots++
			}
			seen := map[xml.Name]bool{}
			for _, a := range t.Attr {
				if seen[a.Name] {
					return fmt.Errorf("attribute %q twice", a.Name.Local)
				}
				seen[a.Name] = true
				if len(a.Value) > maxText {
					return fmt.Errorf("attribute %q is longer than %d bytes", a.Name.Local, maxText)
				}
			}
		case xml.EndElement:
			depth--
		case xml.CharData:
			if strings.TrimSpace(string(t)) != "" {
				return errors.New("text between the elements")
			}
		}
	}
}

// response and what is below it are what a host is answered.
type response struct {
	XMLName  xml.Name `xml:"response"`
	Protocol string   `xml:"protocol,attr"`
	Server   string   `xml:"server,attr"`
	DayStart struct {
		Elapsed int `xml:"elapsed_seconds,attr"`
	} `xml:"daystart"`
	Apps []appResponse `xml:"app"`
}

type appResponse struct {
	ID     string   `xml:"appid,attr"`
	Status string   `xml:"status,attr"`
	Ping   *status  `xml:"ping"`
	Check  *check   `xml:"updatecheck"`
	Events []status `xml:"event"`
}

type status struct {
	Status string `xml:"status,attr"`
}

type check struct {
	Status   string    `xml:"status,attr"`
	URLs     *urls     `xml:"urls"`
	Manifest *manifest `xml:"manifest"`
}

type urls struct {
	URLs []codebase `xml:"url"`
}

type codebase struct {
	CodeBase string `xml:"codebase,attr"`
}

type manifest struct {
	Version  string  `xml:"version,attr"`
	Packages []pack  `xml:"packages>package"`
	Actions  []after `xml:"actions>action"`
}

type pack struct {
	Hash     string `xml:"hash,attr"` // base64 of SHA-1
	Name     string `xml:"name,attr"`
	Size     int64  `xml:"size,attr"`
	Required bool   `xml:"required,attr"`
}

// after is update_engine's own: what it verifies of a package is in the action that follows its installation.
type after struct {
	Event                 string `xml:"event,attr"`
	SHA256                string `xml:"sha256,attr"`
	NeedsAdmin            bool   `xml:"needsadmin,attr"`
	IsDeltaPayload        bool   `xml:"IsDeltaPayload,attr"`
	DisablePayloadBackoff bool   `xml:"DisablePayloadBackoff,attr"`
}
