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
  // A click that was begun on another page doesn't count as an answer here.
  document.querySelectorAll('[data-guard]').forEach(function (button) {
    var since = Date.now();
    window.addEventListener('focus', function () { since = Date.now(); });
    button.addEventListener('click', function (event) {
      if (Date.now() - since < 500) event.preventDefault();
    });
  });
  // Finds among what is offered, without asking again; what was chosen of late
  // comes first.
  var find = document.querySelector('form.find');
  var list = document.querySelector('.choices');
  var recent = [];
  try { recent = JSON.parse(localStorage.getItem('recent')) || []; } catch (e) { /* no storage: no order */ }
  if (list) {
    recent.slice().reverse().forEach(function (key) {
      var item = Array.from(list.children).find(function (li) { return li.dataset.key === key; });
      if (item) list.prepend(item);
    });
    list.addEventListener('click', function (event) {
      var item = event.target.closest('li');
      if (!item) return;
      recent = [item.dataset.key].concat(recent.filter(function (k) { return k !== item.dataset.key; })).slice(0, 5);
      try { localStorage.setItem('recent', JSON.stringify(recent)); } catch (e) { /* the same */ }
    });
  }
  if (find) {
    var filter = function () {
      var words = find.elements.q.value.toLowerCase().split(/\s+/), shown = 0;
      var category = find.elements.category ? find.elements.category.value : '';
      Array.from(list.children).forEach(function (li) {
        var fits = words.every(function (w) { return li.dataset.words.indexOf(w) >= 0; }) &&
          (!category || li.dataset.in.split(' ').indexOf(category) >= 0);
        li.hidden = !fits;
        shown += fits;
      });
      document.getElementById('none').hidden = shown > 0;
    };
    find.addEventListener('input', filter);
    find.addEventListener('submit', function (event) {
      event.preventDefault();
      var first = list.querySelector('li:not([hidden]) a');
      if (first) first.focus();
    });
  }
  var form = document.querySelector('form:not(.confirm):not(.find)');
  if (!form) return;
  // A field that depends on another's answer is there when that is given.
  var conditional = form.querySelectorAll('[data-when]');
  var settle = function () {
    conditional.forEach(function (field) {
      var other = document.getElementById(field.dataset.when);
      field.hidden = !other || other.value !== field.dataset.equals;
      field.querySelectorAll('input, select, textarea').forEach(function (i) { i.disabled = field.hidden; });
    });
  };
  form.addEventListener('input', settle);
  settle();
  // A value that can't be right is told as soon as it is whole: pasted, or left.
  form.querySelectorAll('[data-wrong]').forEach(function (error) {
    var field = error.closest('.field'), input = field.querySelector('input'), told = !error.hidden;
    var check = function () {
      var wrong = input.value !== '' && input.validity.patternMismatch;
      if (wrong) error.textContent = error.dataset.wrong;
      error.hidden = !wrong;
      field.classList.toggle('wrong', wrong);
      field.classList.toggle('right', input.value !== '' && input.validity.valid);
      if (wrong) input.setAttribute('aria-invalid', 'true'); else input.removeAttribute('aria-invalid');
      told = told || wrong;
    };
    input.addEventListener('change', check);
    input.addEventListener('paste', function () { setTimeout(check); });
    input.addEventListener('input', function () { if (told) check(); });
  });
  var button = form.querySelector('button[type=submit]');
  var label = button.querySelector('span');
  // Providers don't let themselves be framed: from a frame the way leads into a
  // window of its own.
  var framed = window.parent !== window && form.dataset.window;
  if (framed) {
    form.target = '_blank';
    form.rel = 'opener';
    label.textContent = form.dataset.window;
  }
  var rest = label.textContent;
  var waits;
  // One answer is enough; a secret goes out as a password, even while shown.
  form.addEventListener('submit', function (event) {
    if (button.getAttribute('aria-disabled') === 'true') return event.preventDefault();
    var say = function (text) {
      label.textContent = text;
      form.querySelector('[role=status]').textContent = text;
    };
    if (framed) return say(form.dataset.opened);
    button.setAttribute('aria-disabled', 'true');
    say(button.dataset.busy);
    waits = setTimeout(function () { say(button.dataset.waits); }, 6000);
    form.querySelectorAll('input.revealable').forEach(function (i) { i.type = 'password'; });
  });
  window.addEventListener('pageshow', function () {
    clearTimeout(waits);
    button.removeAttribute('aria-disabled');
    label.textContent = rest;
  });
})();
