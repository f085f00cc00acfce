// What these pages say to the windows around them: the one that has opened this,
// the page whose frame it is in, and the popup that it has opened itself.
(function () {
  'use strict';
  var list = function (s) { return s ? s.split(' ') : []; };
  var own = location.origin;
  var parent = window.parent !== window ? window.parent : null;
  var peer = window.opener || parent;
  var embedders = list(document.body.dataset.embedders);
  var say = function (to, message, origins) {
    origins.forEach(function (origin) { to.postMessage(message, origin); });
  };

  // In a frame: the page around it brings the session's token, as that of
  // Nango's SDK does when this one is ready, and closes the frame.
  var waits = document.querySelector('[data-embed]');
  if (parent) {
    document.querySelectorAll('[data-close]').forEach(function (button) {
      button.hidden = false;
      button.addEventListener('click', function () { say(parent, { type: 'close' }, embedders); });
    });
    window.addEventListener('message', function (event) {
      var data = event.data;
      if (!data || typeof data.type !== 'string') return;
      if (waits && event.source === parent && embedders.indexOf(event.origin) >= 0 && data.type === 'session_token') {
        location.replace('/connect?session_token=' + encodeURIComponent(String(data.sessionToken)));
      }
      // From the popup that a form in this frame has opened.
      if (event.origin !== own) return;
      if (data.type === 'connect:ask') relay(event.source, data);
      if (data.type === 'connect:result' && data.result.status === 'connected') {
        var token = new URL(location.href).searchParams.get('session_token');
        if (token) location.replace('/connect/done?' + new URLSearchParams({ session_token: token, integration: data.result.provider_config_key }));
      }
    });
    if (waits) say(parent, { type: 'ready' }, embedders);
  }

  // The app's page may be around the frame that has opened the popup: it is
  // asked in the popup's place.
  function relay(popup, asked) {
    window.addEventListener('message', function hear(event) {
      var token = tokenOf(event, parent, asked.origins, asked.challenge);
      if (token === null) return;
      window.removeEventListener('message', hear);
      popup.postMessage({ type: 'connect:answer', challenge: asked.challenge, origin: event.origin, session_token: token }, own);
    });
    ask(parent, asked);
  }

  // connect.js answers the first, Nango's SDK around a frame the second.
  function ask(page, asked) {
    say(page, { type: 'connect:prove', challenge: asked.challenge }, asked.origins);
    if (page === parent) say(page, { type: 'ready' }, asked.origins);
  }

  // The session's token that an answer shows, or null if it is none.
  function tokenOf(event, page, origins, challenge) {
    var data = event.data;
    if (event.source !== page || origins.indexOf(event.origin) < 0 || !data) return null;
    if (data.type === 'connect:proof' && data.challenge === challenge) return String(data.session_token);
    if (data.type === 'session_token' && page === parent) return String(data.sessionToken);
    return null;
  }

  // Asks the page that has opened this one, if it is the app's, to show that it
  // has started this: the browser says which origin answers.
  var form = document.querySelector('form[data-origins]');
  if (form && peer) {
    var asked = { type: 'connect:ask', origins: list(form.dataset.origins) };
    asked.challenge = Array.from(crypto.getRandomValues(new Uint8Array(16)), function (b) { return b.toString(16); }).join('-');
    var person = form.querySelector('.person');
    var waiting = form.querySelector('.asking');
    person.hidden = true;
    waiting.hidden = false;
    var tries = 0;
    var again = function () {
      if (++tries > 12) {
        clearInterval(timer);
        person.hidden = false;
        waiting.hidden = true;
        return;
      }
      ask(peer, asked);
      if (peer !== parent) peer.postMessage(asked, own);
    };
    window.addEventListener('message', function (event) {
      if (tries > 12) return;
      var data = event.data, origin = event.origin;
      var token = tokenOf(event, peer, asked.origins, asked.challenge);
      if (token === null && event.source === peer && origin === own && data && data.type === 'connect:answer' &&
          data.challenge === asked.challenge && asked.origins.indexOf(data.origin) >= 0) {
        origin = data.origin;
        token = String(data.session_token);
      }
      if (token === null) return;
      tries = 99;
      clearInterval(timer);
      form.elements.opener.value = origin;
      form.elements.opener_token.value = token;
      var yes = document.createElement('input');
      yes.type = 'hidden'; yes.name = 'decision'; yes.value = 'yes';
      form.appendChild(yes);
      form.submit();
    });
    var timer = setInterval(again, 250);
    again();
  }

  // Tells the app's page how it went, in the words of connect.js and of Nango's
  // pages.
  var told = document.querySelector('[data-tell]');
  if (told && peer && told.dataset.status) {
    var d = told.dataset, origins = list(d.tell).concat(embedders);
    var result = { status: d.status, provider_config_key: d.integration };
    if (d.connection) result.connection_id = d.connection;
    if (d.code) result.code = d.code;
    var error = { errorType: d.code, message: document.querySelector('h1').textContent, errorMessage: document.querySelector('h1').textContent };
    if (d.status === 'connected') say(peer, { type: 'connect:result', result: result }, origins.concat(own));
    if (peer === parent) {
      say(peer, d.status === 'connected'
        ? { type: 'connect', payload: { providerConfigKey: d.integration, connectionId: d.connection, isPending: false } }
        : { type: 'error', payload: error }, origins);
    } else {
      say(peer, d.status === 'connected' ? { type: 'nango_oauth_callback_success' } : { type: 'nango_oauth_callback_error', payload: error }, origins);
    }
  }
})();
