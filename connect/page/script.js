(function () {
  'use strict';
  // Shows or hides what is typed into a secret's input.
  document.querySelectorAll('[data-reveal]').forEach(function (button) {
    var input = document.getElementById(button.dataset.reveal);
    button.hidden = false;
    button.addEventListener('click', function () {
      var masked = input.classList.toggle('masked');
      if (input.tagName === 'INPUT') input.type = masked ? 'password' : 'text';
      button.setAttribute('aria-pressed', String(!masked));
      button.querySelector('span').textContent = masked ? button.dataset.show : button.dataset.hide;
      input.focus();
    });
  });
  // Asks the page that has opened this one, if it is the app's, to show that it
  // has started this: the browser says which origin answers.
  var asked = document.querySelector('form[data-origins]');
  var peer = window.opener || (window.parent !== window ? window.parent : null);
  if (asked && peer) {
    var origins = asked.dataset.origins.split(' ');
    var challenge = Array.from(crypto.getRandomValues(new Uint8Array(16)), function (b) { return b.toString(16); }).join('-');
    var person = asked.querySelector('.person');
    var waiting = asked.querySelector('.asking');
    person.hidden = true;
    waiting.hidden = false;
    var tries = 0;
    var ask = function () {
      if (++tries > 12) {
        clearInterval(timer);
        person.hidden = false;
        waiting.hidden = true;
        return;
      }
      origins.forEach(function (origin) { peer.postMessage({ type: 'connect:prove', challenge: challenge }, origin); });
    };
    window.addEventListener('message', function (event) {
      var data = event.data;
      if (event.source !== peer || origins.indexOf(event.origin) < 0) return;
      if (!data || data.type !== 'connect:proof' || data.challenge !== challenge || tries > 12) return;
      tries = 99;
      clearInterval(timer);
      asked.elements.opener.value = event.origin;
      asked.elements.opener_token.value = String(data.session_token);
      var yes = document.createElement('input');
      yes.type = 'hidden'; yes.name = 'decision'; yes.value = 'yes';
      asked.appendChild(yes);
      asked.submit();
    });
    var timer = setInterval(ask, 250);
    ask();
  }
  // Tells the app's page how it went.
  var told = document.querySelector('[data-tell]');
  if (told && peer && told.dataset.status) {
    var result = { status: told.dataset.status, provider_config_key: told.dataset.integration };
    if (told.dataset.connection) result.connection_id = told.dataset.connection;
    if (told.dataset.code) result.code = told.dataset.code;
    if (result.status === 'connected') told.dataset.tell.split(' ').forEach(function (origin) {
      peer.postMessage({ type: 'connect:result', result: result }, origin);
    });
  }
  // A click that was begun on another page doesn't count as an answer here.
  document.querySelectorAll('[data-guard]').forEach(function (button) {
    var since = Date.now();
    window.addEventListener('focus', function () { since = Date.now(); });
    button.addEventListener('click', function (event) {
      if (Date.now() - since < 500) event.preventDefault();
    });
  });
  var form = document.querySelector('form:not(.confirm)');
  if (!form) return;
  var button = form.querySelector('button[type=submit]');
  var label = button.querySelector('span');
  var rest = label.textContent;
  // One answer is enough; a secret goes out as a password, even while shown.
  form.addEventListener('submit', function (event) {
    if (button.getAttribute('aria-disabled') === 'true') return event.preventDefault();
    button.setAttribute('aria-disabled', 'true');
    label.textContent = button.dataset.busy;
    form.querySelector('[role=status]').textContent = button.dataset.busy;
    form.querySelectorAll('input.revealable').forEach(function (i) { i.type = 'password'; });
  });
  window.addEventListener('pageshow', function () {
    button.removeAttribute('aria-disabled');
    label.textContent = rest;
  });
})();
