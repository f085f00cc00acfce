package console

import (
	"net/http"
)

// language is one that the connect pages are in.
type language struct{ Tag, Name string }

var languages = []language{
	{"en", "English"}, {"de", "Deutsch"}, {"fr", "Français"}, {"es", "Español"}, {"pt", "Português"}, {"ja", "日本語"}, {"zh-Hans", "简体中文"}, {"ar", "العربية"},
}

type previewBody struct {
	Integrations []integration
	Languages    []language
	Entered      map[string]string
	Link         string
	Wrong        *Refusal
}

// showPreview shows how the connect pages look to users.
func showPreview(v *visit) error { return v.previewPage(previewBody{Entered: map[string]string{}}) }

func (v *visit) previewPage(b previewBody) error {
	var err error
	if b.Integrations, err = v.integrations(); err != nil {
		return err
	}
	b.Languages = languages
	status := http.StatusOK
	if b.Wrong != nil {
		status = http.StatusBadRequest
	}
	return v.render(v, status, "preview", "Preview", b)
}

// preview opens a session that looks as was entered.
func preview(v *visit) error {
	b := previewBody{Entered: make(map[string]string)}
	for _, name := range []string{"integration", "language", "mode", "title", "accent", "dark_accent", "font", "radius"} {
		b.Entered[name] = v.entered(name)
	}
	look := map[string]any{}
	for _, name := range []string{"mode", "title", "font", "radius"} {
		if value := b.Entered[name]; value != "" {
			look[name] = value
		}
	}
	for name, into := range map[string]string{"accent": "colors", "dark_accent": "dark_colors"} {
		if value := b.Entered[name]; value != "" {
			look[into] = map[string]string{"accent": value}
		}
	}
	request := map[string]any{"end_user": map[string]string{"id": "preview", "display_name": "Ada Lovelace", "email": "ada@example.com"}}
	if len(look) > 0 {
		request["look"] = look
	}
	if value := b.Entered["language"]; value != "" {
		request["language"] = value
	}
	if value := b.Entered["integration"]; value != "" {
		request["allowed_integrations"] = []string{value}
	}
	var made struct {
		Data struct {
			Link string `json:"connect_link"`
		}
	}
	if err := v.call(http.MethodPost, "/connect/sessions", request, &made); err != nil {
		refused, err := wrong(err)
		if err != nil {
			return err
		}
		b.Wrong = refused
	}
	b.Link = made.Data.Link
	return v.previewPage(b)
}
