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
  var form = document.querySelector('form');
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
